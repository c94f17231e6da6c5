"""Train or evaluate Detr.

python tools/train_net.py --config detr_256_6_6_torchvision.yaml --num-gpus 8
python tools/train_net.py --config detr_256_6_6_torchvision.yaml --eval-only MODEL.WEIGHTS model.pth
python tools/train_net.py --config detr_r50_custom.yaml --data path/to/coco
"""

from __future__ import annotations

import argparse

from d2_detr.checkpoint.checkpointer import DetrCheckpointer
from d2_detr.data.classes import dataset_label_map
from d2_detr.engine import Trainer, launch, load_config, setup
from d2_detr.errors import one_clear_message

from detectron2.engine import default_argument_parser
from detectron2.evaluation import verify_results
from detectron2.utils import comm


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


def main(args: argparse.Namespace):
    cfg = setup(args)
    if args.eval_only:
        model = Trainer.build_model(cfg)
        checkpointer = DetrCheckpointer(
            model, cfg.OUTPUT_DIR, label_map=dataset_label_map(cfg.DATASETS.TEST[0]), new_parts=()
        )
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
        results = Trainer.test(cfg, model)
        if comm.is_main_process():
            verify_results(cfg, results)
        return results
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


if __name__ == "__main__":
    args = parse_args()
    with one_clear_message():
        launch(
            main,
            num_processes=args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            device=load_config(args.config_file, args.opts, args.data).MODEL.DEVICE,
            args=(args,),
        )
