r"""Convert annotations of the VGG Image Annotator (VIA 1.x, 2.x and projects of 2.x) to COCO format.

A custom dataset is a folder with the images and annotations of training and validation:

    path/to/coco/annotations/custom_train.json  annotations/custom_val.json  train2017/  val2017/

Convert both splits, with the same --classes; the first one with

d2_detr via-to-coco train.json --images path/to/coco/train2017 \
        --output path/to/coco/annotations/custom_train.json --class-attribute kind --classes cat,dog
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from d2_detr.data.formats.via import parse_via, via_to_coco
from d2_detr.utils.command_line import CommandParser
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import read_json, write_json


def parse_args() -> argparse.Namespace:
    """Parse the options of `via-to-coco`."""
    parser = CommandParser("via-to-coco", __doc__)
    add = parser.add_argument
    add("via_file", type=Path, metavar="VIA_FILE", help="annotations or project, saved by VIA as JSON")
    add("--images", "--pictures", type=Path, metavar="FOLDER", help="default: the folder of VIA_FILE")
    add("--output", type=Path, metavar="FILE", required=True, help="COCO file to write (.json)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--class-name", metavar="NAME", help="one class for all regions")
    which.add_argument("--class-attribute", metavar="NAME", help="the region attribute that is the class")
    help_classes = "classes in the order of their ids (default: the options that a project declares, else those in use)"
    add("--classes", metavar="A,B,C", type=lambda names: names.split(","), help=help_classes)
    add("--overwrite", action="store_true", help="replace FILE if it exists with other content")
    return parser.parse_args()


def main() -> None:
    """Run `d2_detr via-to-coco`."""
    args = parse_args()
    if args.output.resolve() == args.via_file.resolve():
        raise InputError(f"{args.output}: would overwrite the VIA annotations; give another --output")
    coco = via_to_coco(
        parse_via(read_json(args.via_file), args.via_file),
        args.images or args.via_file.parent,
        class_name=args.class_name,
        class_attribute=args.class_attribute,
        classes=args.classes,
    )
    try:
        write_json(coco, args.output, overwrite=args.overwrite)
    except InputError as error:
        hint = "; --overwrite replaces it" if args.output.is_file() else ""
        raise InputError(f"{error}{hint}") from error
    print(f"{args.output}: {_summary(coco)}")


def _summary(coco: dict) -> str:
    per_class = Counter(annotation["category_id"] for annotation in coco["annotations"])
    num_empty = len(coco["images"]) - len({annotation["image_id"] for annotation in coco["annotations"]})
    counts = [f"  {category['name']}: {per_class[category['id']]} regions" for category in coco["categories"]]
    return "\n".join([f"{len(coco['images'])} images, {num_empty} of them without regions", *counts])
