"""Write predictions beside the ground truth as pictures, the training curves, and where the model looks.

python tools/visualize.py --config outputs/mine/config.yaml --output pictures    # its model_best.pth
python tools/visualize.py --data path/to/coco --output pictures MODEL.WEIGHTS model.pth
python tools/visualize.py --data path/to/coco --output pictures --compare detr://r50 outputs/model_best.pth
"""

from __future__ import annotations

import argparse
from pathlib import Path

from d2_detr.checkpoint.model_config import load_trained_config
from d2_detr.utils.command_line import ToolParser
from d2_detr.utils.errors import one_clear_message
from d2_detr.visualization.attention import POINTS
from d2_detr.visualization.figures import show_in_windows
from d2_detr.workflows.setup import load_config
from d2_detr.workflows.visualize import compare, visualize


def parse_args() -> argparse.Namespace:
    parser = ToolParser(__doc__, {"--weights": "put MODEL.WEIGHTS FILE behind all options"})
    add = parser.add_argument
    add(
        "--config",
        "--config-file",
        dest="config_file",
        default="",
        metavar="FILE",
        help="a path, or a name in configs/",
    )
    add("--data", default="", metavar="FOLDER", help="dataset of your own, as for finetune.py")
    add("--output", required=True, type=Path, metavar="FOLDER", help="where to write the pictures")
    add("--num", type=int, default=12, help="how many pictures of the test set (default 12)")
    add("--threshold", type=float, help="least score that is shown (default: the best for the model, else 0.7)")
    add(
        "--attention",
        type=int,
        default=2,
        help="of how many pictures to show attention (default 2; not with --compare)",
    )
    point = {"type": float, "nargs": 2, "action": "append", "metavar": ("X", "Y")}
    add(
        "--point",
        **point,
        help="show the encoder's attention from here, in [0, 1] of the picture; as often as you like",
    )
    add("--compare", nargs=2, metavar=("A", "B"), help="two models and the curves of their trainings beside each other")
    add("--show", action="store_true", help="open overview, curves and attention in windows, too")
    add("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs that override the config")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    load = load_config if args.compare else load_trained_config
    cfg = load(args.config_file, args.opts, args.data)
    shown = {"number": args.num, "threshold": args.threshold}
    if args.compare:
        written = compare(cfg, args.compare, args.output, opts=args.opts, **shown)
    else:
        written = visualize(cfg, args.output, attention=args.attention, points=args.point or POINTS, **shown)
    looked_at = " and ".join(args.compare or [cfg.MODEL.WEIGHTS])
    print(f"{looked_at}: written to {args.output}, at a glance: {', '.join(path.name for path in written)}")
    if args.show:
        show_in_windows(written)


if __name__ == "__main__":
    with one_clear_message():
        main()
