"""Bring a balloon dataset to where the configs expect it, with its annotations in COCO format.

python tools/prepare_balloon.py --source drawn          draw one, without a download
python tools/prepare_balloon.py --source real           download the published photographs (38 MB)
python tools/prepare_balloon.py --source path/to/balloon    take them from an unpacked copy
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from d2_detr.data.datasets import balloon
from d2_detr.utils.command_line import ToolParser
from d2_detr.utils.errors import one_clear_message


def parse_args() -> argparse.Namespace:
    parser = ToolParser(__doc__)
    parser.add_argument("--source", default="drawn", help='"drawn", "real", or the folder with train/ and val/')
    return parser.parse_args()


def main() -> None:
    source = parse_args().source
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if source == "drawn":
        name = "balloon_drawn"
        balloon.prepare_drawn(balloon.datasets_folder() / name)
    else:
        name = "balloon"
        balloon.prepare_real(balloon.datasets_folder() / name, None if source == "real" else Path(source))
    for split in balloon.SPLITS:
        num_pictures, num_balloons = balloon.count(balloon.datasets_folder() / name, split)
        print(f"{name}_{split}: {num_pictures} pictures, {num_balloons} balloons")


if __name__ == "__main__":
    with one_clear_message():
        main()
