"""Time a training step and inference of a config, on random images.

d2_detr benchmark --config detr_compact_balloon.yaml --batch 32 --size 128 128 MODEL.DETR.AUTOCAST off
"""

from __future__ import annotations

import argparse

from d2_detr.cli.options import add_config_file, add_opts, required_config_file
from d2_detr.config import load_config
from d2_detr.engine.benchmark import benchmark
from d2_detr.utils.command_line import CommandParser


def parse_args() -> argparse.Namespace:
    """Parse the options of `benchmark`."""
    parser = CommandParser("benchmark", __doc__)
    add = parser.add_argument
    add_config_file(parser)
    add("--batch-size", "--batch", type=int, default=2, help="images per batch (default 2)")
    add("--size", type=int, nargs=2, default=(800, 1066), metavar=("H", "W"), help="(default 800 1066)")
    add("--repeats", type=int, default=5, help="calls whose median is reported (default 5)")
    add_opts(parser)
    return parser.parse_args()


def main() -> None:
    """Run `d2_detr benchmark`."""
    args = parse_args()
    cfg = load_config(required_config_file(args), args.opts)
    if cfg.MODEL.DETR.NUM_CLASSES == -1:
        cfg.MODEL.DETR.NUM_CLASSES = 1  # there is no data to count
    results = benchmark(cfg, batch_size=args.batch_size, size_hw=tuple(args.size), repeats=args.repeats)
    for name, seconds in results.items():
        print(f"{name:14} {seconds:8.3f} s per batch  {args.batch_size / seconds:8.2f} images per second")
