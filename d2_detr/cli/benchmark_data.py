"""Time how long a training needs to start on a dataset as large as COCO.

d2_detr benchmark-data path/to/folder
d2_detr benchmark-data path/to/folder --processes 8 --output times.json
d2_detr benchmark-data path/to/folder --images 8000 --val-images 400 --annotations 60000

The folder gets a dataset of random polygons, unless it has one. With the default numbers this takes some minutes and
2 GB. Then a training is started until its first batch is ready, first with an empty cache and then again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tabulate import tabulate

from d2_detr.cli.options import MAX_PROCESSES, add_opts, whole_number
from d2_detr.data.datasets.random_coco import make_random_coco
from d2_detr.utils.command_line import CommandParser
from d2_detr.utils.files import write_json
from d2_detr.workflows.benchmark_data import as_rows, benchmark_data


def parse_args() -> argparse.Namespace:
    """Parse the options of `benchmark-data`."""
    parser = CommandParser("benchmark-data", __doc__)
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="of the dataset")
    number = whole_number(1, 10**7)
    add("--images", type=number, default=118287, metavar="N", help="training images (default: as COCO, 118287)")
    add("--val-images", type=number, default=5000, metavar="N", help="validation images (default 5000)")
    add("--annotations", type=number, default=897000, metavar="N", help="training objects (default 897000)")
    processes = whole_number(1, MAX_PROCESSES)
    add("--processes", type=processes, default=1, metavar="N", help="also start with so many, for their memory")
    add("--output", type=Path, metavar="FILE", help="JSON file to write the numbers to")
    add_opts(parser)
    return parser.parse_args()


def main() -> None:
    """Run `d2_detr benchmark-data`."""
    args = parse_args()
    make_random_coco(
        args.folder, num_images=args.images, num_val_images=args.val_images, num_annotations=args.annotations
    )
    results = benchmark_data(args.folder, num_processes=args.processes, opts=args.opts)
    headers, rows = as_rows(results)
    print(tabulate(rows, headers, floatfmt=".1f"))
    if args.output:
        write_json(results, args.output)
