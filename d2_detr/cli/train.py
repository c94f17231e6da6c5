"""Train or evaluate a model of a config.

d2_detr train --config detr_256_6_6_torchvision.yaml --num-gpus 8
d2_detr train --config detr_r50_custom.yaml --data path/to/coco --output outputs/mine
d2_detr train --config outputs/mine/config.yaml --resume
"""

from __future__ import annotations

import argparse
from functools import partial

from d2_detr.cli import evaluate as evaluate_command
from d2_detr.cli.options import (
    add_config_options,
    add_launch_options,
    config_opts,
    launch_options,
    required_config_file,
)
from d2_detr.config import load_config
from d2_detr.engine.distributed import launch
from d2_detr.utils.command_line import CommandParser
from d2_detr.workflows.train import train


def parse_args() -> argparse.Namespace:
    """Parse the options of `train`."""
    parser = CommandParser("train", __doc__)
    add_config_options(parser)
    parser.add_argument("--output", "--output-dir", metavar="FOLDER", help="where to write (OUTPUT_DIR)")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in the output folder")
    parser.add_argument("--eval-only", action="store_true", help="evaluate instead, as `evaluate` does")
    add_launch_options(parser)
    return parser.parse_args()


def main() -> None:
    """Run `d2_detr train`."""
    args = parse_args()
    if args.eval_only:
        return evaluate_command.run(args)
    cfg = load_config(required_config_file(args), config_opts(args), args.data)
    launch(partial(train, cfg, resume=args.resume), device=cfg.MODEL.DEVICE, **launch_options(args))
