"""Split one annotation file in COCO format, with its images, into training and validation.

d2_detr split annotations.json --images photos --output path/to/coco
d2_detr finetune --data path/to/coco

Both splits get their share of every class, and of images without objects. Images are linked rather than copied if the
file system allows it. Augmented copies that Roboflow made of one photograph stay in one split. If several photographs
show the same scene, split them by hand.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from tabulate import tabulate

from d2_detr.data.formats.coco import parse_coco
from d2_detr.data.formats.roboflow import without_roboflow_root
from d2_detr.data.splits import write_split
from d2_detr.utils.command_line import CommandParser, command
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import read_json


def parse_args() -> argparse.Namespace:
    """Parse the options of `split`."""
    parser = CommandParser("split", __doc__)
    add = parser.add_argument
    add("annotations", type=Path, metavar="FILE", help="in COCO format, as labeling tools export it")
    add("--images", "--pictures", type=Path, metavar="FOLDER", help="default: the folder of FILE")
    add("--output", type=Path, metavar="FOLDER", required=True, help="dataset to write")
    add("--val-share", type=float, default=0.2, help="share of the validation images (default 0.2)")
    add("--seed", type=int, default=0, help="another seed splits differently (default 0)")
    add("--strict", action="store_true", help="do not drop annotations that cannot be trained on")
    return parser.parse_args()


def main() -> None:
    """Run `d2_detr split`."""
    args = parse_args()
    images = args.images or args.annotations.parent
    if not images.is_dir():
        raise InputError(f"{images}: no such folder; --images gives the folder of the images")
    content = without_roboflow_root(read_json(args.annotations))
    coco = parse_coco(content, images, source=args.annotations, strict=args.strict)
    splits = write_split(coco, images, args.output, val_share=args.val_share, seed=args.seed)
    objects = [Counter(annotation["category_id"] for annotation in split.annotations) for split in splits.values()]
    rows = [[name, *(count[category_id] for count in objects)] for category_id, name in coco.categories.items()]
    rows.append(["images", *(len(split.images) for split in splits.values())])
    print(tabulate(rows, ["objects", *splits]))
    print(f"written to {args.output}; to train: {command('finetune', '--data', args.output)}")
