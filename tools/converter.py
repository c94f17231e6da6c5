"""Convert a native DETR checkpoint, so that MODEL.WEIGHTS takes it.

python tools/converter.py --source_model detr-r50-e632da11.pth --output_model detr_r50.pth [--remove-class-head]
"""

from __future__ import annotations

import argparse

import torch

from d2_detr.checkpoint.convert import to_plugin
from d2_detr.checkpoint.read import read_checkpoint
from d2_detr.checkpoint.weights import local_weights
from d2_detr.errors import one_clear_message
from d2_detr.files import replacing


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source_model", required=True, metavar="PATH_OR_URL", help="native DETR checkpoint")
    parser.add_argument("--output_model", required=True, metavar="PATH", help="where to write the converted one (.pth)")
    parser.add_argument("--remove-class-head", action="store_true", help="leave out the class head, to fine-tune")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    source = read_checkpoint(local_weights(args.source_model))
    state_dict, report = to_plugin(source["model"], remove_class_head=args.remove_class_head)
    with replacing(args.output_model) as temporary:
        torch.save({"model": state_dict}, temporary)
    print(f"{args.output_model}: {report}")


if __name__ == "__main__":
    with one_clear_message():
        main()
