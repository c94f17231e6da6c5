"""Validate a dataset without training: annotations, images, classes, and what looks wrong.

d2_detr check --data path/to/coco
d2_detr check --data path/to/coco --masks
"""

from __future__ import annotations

import argparse
import logging

from d2_detr.cli.options import add_data_option, add_opts
from d2_detr.utils.command_line import CommandParser
from d2_detr.utils.errors import InputError
from d2_detr.workflows.check import check


def parse_args() -> argparse.Namespace:
    """Parse the options of `check`."""
    parser = CommandParser("check", __doc__)
    add_data_option(parser)
    parser.add_argument("--masks", action="store_true", help="every object must have a mask")
    add_opts(parser)
    return parser.parse_args()


def main() -> None:
    """Run `d2_detr check`."""
    args = parse_args()
    if not args.data:
        raise InputError("--data is missing: the folder of the dataset")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    check(args.data, masks=args.masks, strict=args.strict, opts=args.opts)
    print(f"{args.data} can be trained on")
