"""Make panoptic annotations from instance masks in COCO format: what no object covers becomes one stuff class.

d2_detr make-panoptic path/to/coco/annotations/custom_train.json path/to/coco/annotations/custom_val.json

writes custom_train_panoptic.json and the PNGs in custom_train_panoptic/ beside the first file, and likewise for the
second.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from d2_detr.data.formats.coco_panoptic import PanopticFile, read_panoptic
from d2_detr.data.formats.panoptic_from_instances import make_panoptic
from d2_detr.utils.command_line import CommandParser


def parse_args() -> argparse.Namespace:
    """Parse the options of `make-panoptic`."""
    parser = CommandParser("make-panoptic", __doc__)
    add = parser.add_argument
    add("files", type=Path, nargs="+", metavar="FILE", help="annotations in COCO format, with masks")
    add("--background", metavar="NAME", default="background", help="name of the stuff class (default: background)")
    add("--images", "--pictures", type=Path, metavar="FOLDER", help="needed for files without the sizes of images")
    return parser.parse_args()


def main() -> None:
    """Run `d2_detr make-panoptic`."""
    args = parse_args()
    for path in args.files:
        json_file = make_panoptic(path, args.images, background=args.background)
        print(f"{json_file}: {_summary(read_panoptic(json_file))}")


def _summary(file: PanopticFile) -> str:
    per_class = Counter(segment["category_id"] for a in file.annotations for segment in a["segments_info"])
    counts = [f"  {category}: {per_class[i]} segments" for i, category in file.categories.items()]
    return "\n".join([f"{len(file.annotations)} images", *counts])
