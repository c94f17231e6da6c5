"""Fine-tune a trained DETR on your own pictures.

python tools/finetune.py --data path/to/coco --weights detr://r50 --epochs 10 --output-dir outputs
python tools/finetune.py --continue --output-dir outputs                # goes on where it was interrupted
python tools/finetune.py --continue --output-dir outputs --epochs 20    # and for 20 epochs in all

The config that it used is written to the output folder; `train_net.py --config outputs/config.yaml OUTPUT_DIR again`
repeats the run. Options of native DETR's main.py are understood, but its --resume FILE only gives the weights.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from d2_detr.data.datasets.layouts import LAYOUTS, find_layout
from d2_detr.engine.distributed import group_size, launch
from d2_detr.utils.command_line import ToolParser
from d2_detr.utils.errors import InputError, one_clear_message
from d2_detr.workflows.finetune import EPOCHS, finetune_config, lengthen
from d2_detr.workflows.setup import load_config
from d2_detr.workflows.train import train

# Options of main.py that are keys of the config here.
NATIVE_KEYS = {
    "--num_classes": "MODEL.DETR.NUM_CLASSES", "--frozen_weights": "MODEL.DETR.FROZEN_WEIGHTS",
    "--eos_coef": "MODEL.DETR.NO_OBJECT_WEIGHT", "--weight_decay": "SOLVER.WEIGHT_DECAY",
    "--clip_max_norm": "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "--num_workers": "DATALOADER.NUM_WORKERS",
    "--device": "MODEL.DEVICE", "--seed": "SEED", "--dropout": "MODEL.DETR.DROPOUT",
    "--giou_loss_coef": "MODEL.DETR.GIOU_WEIGHT", "--bbox_loss_coef": "MODEL.DETR.L1_WEIGHT",
}  # fmt: skip
OF_THE_WEIGHTS = (
    "backbone", "dilation", "enc_layers", "dec_layers", "dim_feedforward", "hidden_dim", "nheads", "num_queries",
    "position_embedding", "pre_norm",
)  # fmt: skip
# What others mean here.
ANSWERS = {
    **{f"--{name}": "the model is that of --weights, so leave it out" for name in OF_THE_WEIGHTS},
    "--eval": "python tools/train_net.py --eval-only --data FOLDER MODEL.WEIGHTS FILE evaluates",
    "--config": "python tools/train_net.py --config FILE trains from a config",
    "--coco_panoptic_path": "python tools/train_net.py --config detr_panoptic_r50_custom.yaml learns stuff, too",
    "--mask_loss_coef": "the losses of masks have weights of 1",
    "--dice_loss_coef": "the losses of masks have weights of 1",
    "--set_cost_class": "the cost of the class has a weight of 1",
    "--set_cost_bbox": "the costs of matching are the weights of the losses here: --bbox_loss_coef",
    "--set_cost_giou": "the costs of matching are the weights of the losses here: --giou_loss_coef",
    "--no_aux_loss": "put MODEL.DETR.DEEP_SUPERVISION False behind all options",
    "--start_epoch": "--continue goes on where the training in --output-dir was interrupted",
    "--world_size": "--num-gpus is the number of processes",
    "--dist_url": "docs/several_machines.md says how several machines train together",
    "--remove_difficult": "it has no effect in native DETR either",
}
OF_EVERY_RUN = {"epochs", "output_dir", "go_on", "num_gpus", "opts"}  # all else belongs to its beginning


def argument_parser() -> ToolParser:
    parser = ToolParser(__doc__, ANSWERS)
    add = parser.add_argument
    add("--data", "--coco_path", metavar="FOLDER", help="annotated pictures, in any layout of the README")
    add("--weights", metavar="FILE", help="trained model: path, address or name (default detr://r50)")
    add("--resume", metavar="FILE", help="the same, as native DETR calls it")
    add("--epochs", type=float, help=f"(default {EPOCHS}; with --continue that of the training)")
    add("--batch-size", "--batch_size", type=int, default=2, help="pictures at once on each GPU (default 2)")
    add("--lr", type=float, default=0, help="learning rate (default: as the batch wants it)")
    add("--lr-backbone", "--lr_backbone", type=float, help="of the backbone (default: a tenth)")
    add("--lr-drop", "--lr_drop", type=float, metavar="EPOCHS", help="then the rate falls to a tenth (default: 4/5)")
    add("--image-size", type=int, default=0, metavar="PIXELS", help="short side of pictures (default: as the weights)")
    add("--patience", type=int, default=0, metavar="EPOCHS", help="end when AP has not risen in so many")
    add("--masks", action="store_true", help="learn masks besides boxes")
    add("--output-dir", "--output_dir", default="outputs", metavar="FOLDER", help="(default outputs)")
    add("--continue", action="store_true", dest="go_on", help="go on with the training in the output folder")
    add("--num-gpus", type=int, default=1, help="(default 1)")
    add("--dataset_file", choices=LAYOUTS, help="layout that the data must have (default: what is found)")
    for option, key in NATIVE_KEYS.items():
        add(option, dest=key, metavar="VALUE", help=key)
    add("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs that override the config")
    return parser


def new_config(args: argparse.Namespace):
    if not args.data:
        raise InputError("--data is missing: the folder of your annotated pictures")
    if args.resume and args.weights:
        raise InputError("--resume FILE is native DETR's word for --weights FILE; give one of them")
    if args.resume:
        print(f"--resume {args.resume}: starting from these weights; --continue would go on with a training")
    found = find_layout(Path(args.data)).name
    if args.dataset_file not in (None, found):
        raise InputError(f"{args.data}: has the layout `{found}`, not `{args.dataset_file}`; leave --dataset_file out")
    given = [part for key in NATIVE_KEYS.values() if (value := vars(args)[key]) for part in (key, value)]
    return finetune_config(
        args.data, args.weights or args.resume or "", output_dir=args.output_dir,
        epochs=EPOCHS if args.epochs is None else args.epochs,
        batch_size=args.batch_size, num_processes=group_size(args.num_gpus), lr=args.lr, lr_backbone=args.lr_backbone,
        lr_drop=args.lr_drop, image_size=args.image_size, patience=args.patience, masks=args.masks,
        opts=[*given, *args.opts],
    )  # fmt: skip


def old_config(args: argparse.Namespace, parser: ToolParser):
    config = Path(args.output_dir) / "config.yaml"
    if not config.is_file():
        raise InputError(f"{config}: no such file, so there is no training to go on with; begin one with --data")
    begun_with = set(vars(args)) - OF_EVERY_RUN
    if others := sorted(name for name in begun_with if vars(args)[name] != parser.get_default(name)):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in others)
        raise InputError(
            f"--continue goes on as {config} says; leave out {options}. To train on other data, or "
            "otherwise, begin anew with its model as --weights, and another --output-dir"
        )
    cfg = load_config(str(config), ["OUTPUT_DIR", args.output_dir, *args.opts])
    return cfg if args.epochs is None else lengthen(cfg, args.epochs)


def main() -> None:
    parser = argument_parser()
    args = parser.parse_args()
    cfg = old_config(args, parser) if args.go_on else new_config(args)
    launch(partial(train, cfg, resume=args.go_on), num_processes=args.num_gpus, device=cfg.MODEL.DEVICE)


if __name__ == "__main__":
    with one_clear_message():
        main()
