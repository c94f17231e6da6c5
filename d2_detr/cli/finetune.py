"""Fine-tune a trained DETR on your own images.

d2_detr finetune --data path/to/coco --weights detr://r50 --epochs 10 --output outputs/mine
d2_detr finetune --continue --output outputs/mine                # continue where it was interrupted
d2_detr finetune --continue --output outputs/mine --epochs 20    # and train for 20 epochs in total

The output folder gets the complete config: d2_detr train --config outputs/mine/config.yaml --output again repeats the
run. Options of native DETR's main.py are accepted; its --resume FILE only names the initial weights.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from d2_detr.checkpoint.resume import has_checkpoint
from d2_detr.cli.options import MAX_PROCESSES, add_data_option, add_opts, whole_number
from d2_detr.config import load_config, merge_options
from d2_detr.config.reading import read_config
from d2_detr.data.datasets.layouts import LAYOUTS, find_layout
from d2_detr.engine.distributed import expected_world_size, launch
from d2_detr.utils.command_line import CommandParser, command
from d2_detr.utils.errors import InputError
from d2_detr.workflows.finetune import EPOCHS, finetune_config
from d2_detr.workflows.train import train

from detectron2.config import CfgNode

# Options of main.py that are config keys here.
NATIVE_KEYS = {
    "--num_classes": "MODEL.DETR.NUM_CLASSES", "--frozen_weights": "MODEL.DETR.FROZEN_WEIGHTS",
    "--eos_coef": "MODEL.DETR.NO_OBJECT_WEIGHT", "--weight_decay": "SOLVER.WEIGHT_DECAY",
    "--clip_max_norm": "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "--num_workers": "DATALOADER.NUM_WORKERS",
    "--device": "MODEL.DEVICE", "--seed": "SEED", "--dropout": "MODEL.DETR.DROPOUT",
    "--giou_loss_coef": "MODEL.DETR.GIOU_WEIGHT", "--bbox_loss_coef": "MODEL.DETR.L1_WEIGHT",
}  # fmt: skip
MODEL_OPTIONS = (
    "backbone", "dilation", "enc_layers", "dec_layers", "dim_feedforward", "hidden_dim", "nheads", "num_queries",
    "position_embedding", "pre_norm",
)  # fmt: skip
HINTS = {
    **{f"--{name}": "the model is that of --weights; leave this out" for name in MODEL_OPTIONS},
    "--eval": f"use {command('evaluate', '--data')} FOLDER --weights FILE",
    "--config": f"use {command('train', '--config')} FILE",
    "--coco_panoptic_path": f"use {command('train', '--config', 'detr_panoptic_r50_custom.yaml')}",
    "--mask_loss_coef": "mask losses have weight 1",
    "--dice_loss_coef": "mask losses have weight 1",
    "--set_cost_class": "the class cost has weight 1",
    "--set_cost_bbox": "matching costs have the weights of the losses: --bbox_loss_coef",
    "--set_cost_giou": "matching costs have the weights of the losses: --giou_loss_coef",
    "--no_aux_loss": "put MODEL.DETR.DEEP_SUPERVISION False after the options",
    "--start_epoch": "--continue resumes the training in --output",
    "--world_size": "--num-gpus is the number of processes",
    "--dist_url": "docs/several_machines.md explains training on several machines",
    "--remove_difficult": "it has no effect in native DETR either",
}
RUN_OPTIONS = {"epochs", "output", "continue_", "num_gpus", "debug", "opts"}  # all others belong to the start


def build_parser() -> CommandParser:
    """Build the parser of `finetune`."""
    parser = CommandParser("finetune", __doc__, HINTS)
    add = parser.add_argument
    add_data_option(parser)
    add(
        "--weights",
        metavar="FILE",
        help="model: path, address or name (default detr://r50, for masks detr://r50-panoptic)",
    )
    add("--resume", metavar="FILE", help="native DETR's name for --weights")
    add("--epochs", type=float, help=f"(default {EPOCHS}; with --continue: unchanged)")
    add("--batch-size", "--batch_size", type=int, default=2, help="images per GPU (default 2)")
    add("--lr", type=float, help="learning rate (default: follows the batch size)")
    add("--lr-backbone", "--lr_backbone", type=float, help="of the backbone (default: a tenth; 0 freezes it)")
    add("--lr-drop", "--lr_drop", type=float, metavar="EPOCHS", help="when it drops to a tenth (default: at 4/5)")
    add("--image-size", type=int, metavar="PIXELS", help="short side of images (default: as the weights)")
    add("--patience", type=int, default=0, metavar="N", help="stop after N evaluations (epochs) without a better AP")
    add("--masks", action="store_true", help="train masks as well as boxes")
    add("--output", "--output-dir", "--output_dir", default="", metavar="FOLDER", help="(default: outputs/DATASET)")
    add("--continue", action="store_true", dest="continue_", help="resume the training in the output folder")
    add("--num-gpus", type=whole_number(1, MAX_PROCESSES), default=1, metavar="N", help="(default 1)")
    add("--dataset_file", choices=LAYOUTS, help="layout that the data must have (default: any)")
    for option, key in NATIVE_KEYS.items():
        add(option, dest=key, metavar="VALUE", help=key)
    add_opts(parser)
    return parser


def main() -> None:
    """Run `d2_detr finetune`."""
    parser = build_parser()
    args = parser.parse_args()
    cfg = _config_to_continue(args, parser) if args.continue_ else _new_config(args)
    launch(partial(train, cfg, resume=args.continue_), num_processes=args.num_gpus, device=cfg.MODEL.DEVICE)


def _new_config(args: argparse.Namespace) -> CfgNode:
    if not args.data:
        raise InputError("--data is missing: the folder of your annotated images")
    if args.resume and args.weights:
        raise InputError("--resume FILE is native DETR's name for --weights FILE; give one of them")
    if args.resume:
        print(f"--resume {args.resume}: starting from these weights (--continue would resume a training)")
    layout = find_layout(Path(args.data)).name
    if args.dataset_file not in (None, layout):
        raise InputError(f"{args.data}: has the layout `{layout}`, not `{args.dataset_file}`; leave --dataset_file out")
    given = {key: vars(args)[key] for key in NATIVE_KEYS.values() if vars(args)[key] is not None}
    native = [part for pair in given.items() for part in pair]
    return finetune_config(
        args.data,
        args.weights or args.resume or "",
        epochs=EPOCHS if args.epochs is None else args.epochs,
        output_dir=args.output,
        batch_size=args.batch_size,
        num_processes=expected_world_size(args.num_gpus),
        lr=args.lr,
        lr_backbone=args.lr_backbone,
        lr_drop=args.lr_drop,
        image_size=args.image_size,
        patience=args.patience,
        masks=args.masks,
        strict=args.strict,
        opts=[*native, *args.opts],
    )


def _config_to_continue(args: argparse.Namespace, parser: CommandParser) -> CfgNode:
    if not args.output:
        found = ", ".join(str(path) for path in sorted(Path("outputs").glob("*")) if has_checkpoint(path))
        raise InputError(f"--continue needs --output, the folder of the training (found: {found or 'none'})")
    config = Path(args.output) / "config.yaml"
    if not config.is_file():
        raise InputError(f"{config}: no such file, so there is no training to continue; start one with --data")
    start_options = {
        option for action in parser._actions if action.dest not in RUN_OPTIONS for option in action.option_strings[:1]
        if vars(args).get(action.dest, action.default) != action.default
    }  # fmt: skip
    if start_options:
        raise InputError(
            f"--continue uses the settings in {config}; leave out {', '.join(sorted(start_options))}. For other data "
            "or settings, start a new training with its model as --weights, and another --output"
        )
    if "VERSION" not in {setting.key for setting in read_config(config)}:  # the sections are in alphabetical order
        raise InputError(f"{config}: its end is missing; restore it, or start a new training with --weights and --data")
    cfg = load_config(config, ["OUTPUT_DIR", args.output, *args.opts])
    if args.epochs is not None:
        if args.epochs == 0:
            raise InputError("--epochs 0: expected a positive number")
        if not cfg.SOLVER.MAX_EPOCHS:
            raise InputError(
                f"{config} has no SOLVER.MAX_EPOCHS: its length is in iterations; use "
                f"{command('train', '--config', config, '--resume', 'SOLVER.MAX_ITER')} N"
            )
        merge_options(cfg, ["SOLVER.MAX_EPOCHS", args.epochs])
    return cfg
