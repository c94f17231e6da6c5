"""Measure AP of a model, and write a report.

d2_detr evaluate --config outputs/mine/config.yaml                       # its best model on its validation images
d2_detr evaluate --config outputs/mine/config.yaml --split test          # on the test split of its dataset
d2_detr evaluate --weights outputs/mine/model_best.pth --data path/to/other      # on other images of its classes
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from d2_detr.checkpoint.model_config import load_trained_config
from d2_detr.cli.options import (
    add_config_options,
    add_launch_options,
    config_opts,
    launch_options,
    required_config_file,
)
from d2_detr.config import load_config
from d2_detr.config.keys import CUSTOM_TEST, CUSTOM_TRAIN, CUSTOM_VAL, PANOPTIC_SUFFIX
from d2_detr.engine.distributed import launch
from d2_detr.utils.command_line import CommandParser
from d2_detr.utils.errors import InputError
from d2_detr.workflows.evaluate import evaluate
from d2_detr.workflows.finetune import new_output_folder

from detectron2.config import CfgNode

SPLITS = {"train": CUSTOM_TRAIN, "val": CUSTOM_VAL, "test": CUSTOM_TEST}


def parse_args() -> argparse.Namespace:
    """Parse the options of `evaluate`."""
    parser = CommandParser("evaluate", __doc__)
    add_config_options(parser)
    parser.add_argument("--split", choices=SPLITS, help="of a custom dataset (default: that of the config, or val)")
    parser.add_argument(
        "--output", "--output-dir", metavar="FOLDER", help="where to write (default: the folder of the training)"
    )
    parser.add_argument("--resume", action="store_true", help="evaluate the last checkpoint in the output folder")
    add_launch_options(parser)
    return parser.parse_args()


def main() -> None:
    """Run `d2_detr evaluate`."""
    run(parse_args())


def run(args: argparse.Namespace) -> None:
    """Evaluate with the options of `evaluate`, or of `train --eval-only`."""
    if args.resume:
        cfg = load_config(required_config_file(args), config_opts(args), args.data)
    else:
        cfg = load_trained_config(args.config_file, config_opts(args), args.data)
    if split := getattr(args, "split", None):
        if not cfg.DATASETS.CUSTOM:
            raise InputError(f"--split {split}: only custom datasets have splits; give --data FOLDER")
        suffix = PANOPTIC_SUFFIX if cfg.MODEL.DETR.PANOPTIC_ON else ""
        cfg.DATASETS.TEST = (SPLITS[split] + suffix,)
    if not (args.config_file or "OUTPUT_DIR" in args.opts or args.output):
        cfg.OUTPUT_DIR = str(_default_output(cfg))
    launch(partial(evaluate, cfg, resume=args.resume), device=cfg.MODEL.DEVICE, **launch_options(args))


def _default_output(cfg: CfgNode) -> Path:
    """Return the folder of the training that the weights are from, or a new one."""
    folder = Path(cfg.MODEL.WEIGHTS).parent
    return folder if (folder / "config.yaml").is_file() else new_output_folder(cfg.DATASETS.CUSTOM or "evaluation")
