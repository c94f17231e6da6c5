"""Train or evaluate Detr.

python tools/train_net.py --config detr_256_6_6_torchvision.yaml --num-gpus 8
python tools/train_net.py --config detr_256_6_6_torchvision.yaml --eval-only MODEL.WEIGHTS model.pth
python tools/train_net.py --data path/to/coco --eval-only MODEL.WEIGHTS outputs/mine/model_best.pth
python tools/train_net.py --config detr_r50_custom.yaml --data path/to/coco
"""

from __future__ import annotations

import argparse
from functools import partial

from d2_detr.checkpoint.model_config import load_trained_config
from d2_detr.engine.distributed import launch
from d2_detr.utils.errors import InputError, one_clear_message
from d2_detr.workflows.setup import load_config
from d2_detr.workflows.train import evaluate, train

from detectron2.engine import default_argument_parser


def parse_args() -> argparse.Namespace:
    parser = default_argument_parser(__doc__)
    parser.add_argument(
        "--data",
        default="",
        metavar="FOLDER",
        help="dataset of your own: annotations/custom_train.json, custom_val.json, train2017/, val2017/; or with the "
        "names of COCO; or an export of Roboflow in COCO format; or train/ and val/, each with a file of VIA",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    of_trained = args.eval_only and not args.resume
    if not (args.config_file or of_trained):
        raise InputError("--config is missing: give a file, or the name of one in configs/")
    cfg = (load_trained_config if of_trained else load_config)(args.config_file, args.opts, args.data)
    launch(
        partial(evaluate if args.eval_only else train, cfg, resume=args.resume),
        num_processes=args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        device=cfg.MODEL.DEVICE,
    )


if __name__ == "__main__":
    with one_clear_message():
        main()
