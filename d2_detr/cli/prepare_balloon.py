"""Put a balloon dataset where the configs expect it, with annotations in COCO format.

d2_detr prepare-balloon --source drawn              # draw one, without a download
d2_detr prepare-balloon --source real               # download the published photographs (38 MB)
d2_detr prepare-balloon --source path/to/balloon    # copy them from an unpacked dataset
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from d2_detr.data.datasets import balloon
from d2_detr.data.datasets.catalog import datasets_folder
from d2_detr.utils.command_line import CommandParser


def parse_args() -> argparse.Namespace:
    """Parse the options of `prepare-balloon`."""
    parser = CommandParser("prepare-balloon", __doc__)
    parser.add_argument("--source", default="drawn", help='"drawn", "real", or the folder with train/ and val/')
    return parser.parse_args()


def main() -> None:
    """Run `d2_detr prepare-balloon`."""
    source = parse_args().source
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    name = "balloon_drawn" if source == "drawn" else "balloon"
    folder = datasets_folder() / name
    if source == "drawn":
        balloon.prepare_drawn(folder)
    else:
        balloon.prepare_real(folder, None if source == "real" else Path(source))
    for split in balloon.SPLITS:
        num_images, num_balloons = balloon.count(folder, split)
        print(f"{name}_{split}: {num_images} images, {num_balloons} balloons")
