"""Make panoptic ground truth of instance masks in COCO format: what no object covers becomes one kind of stuff.

    python tools/make_panoptic.py path/to/coco/annotations/custom_train.json path/to/coco/annotations/custom_val.json

writes custom_train_panoptic.json and the PNGs in custom_train_panoptic/ beside the first file, and so for the second.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from d2_detr.data.formats.coco_panoptic import PanopticFile, read_panoptic
from d2_detr.data.formats.panoptic_from_instances import make_panoptic
from d2_detr.utils.command_line import ToolParser
from d2_detr.utils.errors import one_clear_message


def parse_args() -> argparse.Namespace:
    parser = ToolParser(__doc__)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="annotations in COCO format, with masks")
    parser.add_argument(
        "--background", metavar="NAME", default="background", help="name of the stuff; default: %(default)s"
    )
    pictures_help = "folder of the pictures; needed for files that do not give their sizes"
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help=pictures_help)
    return parser.parse_args()


def account(file: PanopticFile) -> str:
    """What a panoptic dataset holds, in lines."""
    per_class = Counter(segment["category_id"] for a in file.annotations for segment in a["segments_info"])
    counts = [f"  segments of {category}: {per_class[i]}" for i, category in file.categories.items()]
    return "\n".join([f"{len(file.annotations)} pictures", *counts])


def main() -> None:
    args = parse_args()
    for path in args.files:
        json_file = make_panoptic(path, args.pictures, background=args.background)
        print(f"{json_file}: {account(read_panoptic(json_file))}")


if __name__ == "__main__":
    with one_clear_message():
        main()
