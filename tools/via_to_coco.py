"""Convert annotations of the VGG Image Annotator (VIA 1.x, 2.x and projects of 2.x) to COCO format.

A dataset of your own lies in one folder, with pictures and annotations of what to train on and what to test on:

    path/to/coco/annotations/custom_train.json  annotations/custom_val.json  train2017/  val2017/

Convert both parts, each with the same --classes; the first one by

    python tools/via_to_coco.py train.json --pictures path/to/coco/train2017 \\
        --output path/to/coco/annotations/custom_train.json --class-attribute kind --classes cat,dog
"""

from __future__ import annotations

import argparse
from collections import Counter
from functools import partial
from pathlib import Path

from d2_detr.data.formats.via import via_to_coco
from d2_detr.data.images import image_size
from d2_detr.utils.command_line import ToolParser
from d2_detr.utils.errors import InputError, one_clear_message
from d2_detr.utils.files import read_json, write_json


def parse_args() -> argparse.Namespace:
    parser = ToolParser(__doc__)
    parser.add_argument("via_file", type=Path, metavar="VIA_FILE", help="annotations or project, saved by VIA as JSON")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="default: the folder of VIA_FILE")
    parser.add_argument("--output", type=Path, metavar="FILE", required=True, help="COCO file to write (.json)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--class-name", metavar="NAME", help="one class for all regions")
    which.add_argument("--class-attribute", metavar="NAME", help="the region attribute that says the class")
    classes_help = "classes in the order of their ids; default: the options that a project declares, else those found"
    parser.add_argument("--classes", metavar="A,B,C", type=lambda names: names.split(","), help=classes_help)
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it is there with other content")
    return parser.parse_args()


def _size(via_file: Path, folder: Path, file_name: str) -> tuple[int, int]:
    path = folder / file_name
    if not path.is_file():
        raise InputError(f"{path}: named in {via_file}, but there is no such picture; give its folder with --pictures")
    return image_size(path)


def account(coco: dict) -> str:
    """What a COCO dataset holds, in lines."""
    per_class = Counter(annotation["category_id"] for annotation in coco["annotations"])
    num_empty = len(coco["images"]) - len({annotation["image_id"] for annotation in coco["annotations"]})
    counts = [f"  regions of {category['name']}: {per_class[category['id']]}" for category in coco["categories"]]
    return "\n".join([f"{len(coco['images'])} pictures, {num_empty} of them without regions", *counts])


def main() -> None:
    args = parse_args()
    if args.output.resolve() == args.via_file.resolve():
        raise InputError(f"{args.output}: the annotations of VIA would be overwritten; give another --output")
    coco = via_to_coco(
        read_json(args.via_file),
        partial(_size, args.via_file, args.pictures or args.via_file.parent),
        source=str(args.via_file),
        class_name=args.class_name,
        class_attribute=args.class_attribute,
        classes=args.classes,
    )
    try:
        write_json(coco, args.output, overwrite=args.overwrite)
    except InputError as error:
        hint = "; --overwrite replaces it" if args.output.is_file() else ""
        raise InputError(f"{error}{hint}") from error
    print(f"{args.output}: {account(coco)}")


if __name__ == "__main__":
    with one_clear_message():
        main()
