"""Time a training step and inference of a config, beside other implementations of DETR where they are installed.

d2_detr benchmark --config detr_256_6_6_torchvision.yaml --batch 2 --size 640 640 --output outputs/benchmark
d2_detr benchmark --config detr_compact_balloon.yaml --batch 32 --size 128 128 --precision float32 --no-peers

All get the same weights, images, targets, losses and clipping, and take turns in one process. Before anything is timed,
their outputs, losses and gradients are compared. `pip install d2_detr[benchmark]` installs transformers; native DETR
is found if PYTHONPATH has a clone of facebookresearch/detr.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from d2_detr.cli.options import add_config_file, add_opts, required_config_file, whole_number
from d2_detr.config import load_config
from d2_detr.config.checking import MAX_SIDE
from d2_detr.engine.benchmark.contestants import PRECISIONS
from d2_detr.engine.benchmark.run import Options, run_benchmark
from d2_detr.utils.command_line import CommandParser
from d2_detr.utils.errors import InputError

MAX_PIXELS = 2**30  # of a batch: 64 images of 4096 x 4096


def parse_args() -> argparse.Namespace:
    """Parse the options of `benchmark`."""
    parser = CommandParser("benchmark", __doc__)
    add = parser.add_argument
    add_config_file(parser)
    add("--batch-size", "--batch", type=whole_number(1, 1024), default=2, help="images per batch (default 2)")
    add(
        "--size",
        type=whole_number(1, MAX_SIDE),
        nargs=2,
        default=(800, 1066),
        metavar=("H", "W"),
        help="(default 800 1066)",
    )
    add("--padded", action="store_true", help="images of different sizes, the largest of which is --size")
    add(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        default=list(PRECISIONS),
        help="(default both; not right before KEY VALUE pairs)",
    )
    add("--repeats", type=whole_number(1, 10_000), default=5, help="calls whose median is reported (default 5)")
    add("--no-peers", action="store_true", help="time only this project")
    add("--memory", action="store_true", help="also measure the peak memory of a training step")
    add("--profile", action="store_true", help="also show where the time of a training step goes")
    add("--loader", action="store_true", help="also measure the training loader on one core")
    help_evaluation = "also measure an evaluation of N images of 640 pixels"
    add("--evaluation", type=whole_number(0, 100_000), default=0, metavar="N", help=help_evaluation)
    add("--output", type=Path, metavar="FOLDER", help="write results.json, results.md and results.png there")
    add_opts(parser)
    return parser.parse_args()


def main() -> None:
    """Run `d2_detr benchmark`."""
    args = parse_args()
    if args.batch_size * args.size[0] * args.size[1] > MAX_PIXELS:
        raise InputError(f"--batch-size {args.batch_size} --size {args.size[0]} {args.size[1]}: expected fewer pixels")
    cfg = load_config(required_config_file(args), args.opts)
    if cfg.MODEL.DETR.NUM_CLASSES == -1:
        cfg.MODEL.DETR.NUM_CLASSES = 1  # there is no data to count
    options = Options(
        batch_size=args.batch_size,
        size_hw=tuple(args.size),
        padded=args.padded,
        precisions=args.precision,
        repeats=args.repeats,
        peers=not args.no_peers,
        memory=args.memory,
        profile=args.profile,
        loader=args.loader,
        evaluation=args.evaluation,
    )
    results = run_benchmark(cfg, options)
    print(results.as_markdown(), end="")
    if args.output:
        results.save(args.output)
        print(f"\nWritten to {args.output}: results.json, results.md, results.png")
