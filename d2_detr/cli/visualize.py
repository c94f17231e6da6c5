"""Draw predictions beside the ground truth, the training curves, and what the model attends to.

d2_detr visualize --config outputs/mine/config.yaml --output drawings    # its model_best.pth
d2_detr visualize --data path/to/coco --weights model.pth --output drawings
d2_detr visualize --data path/to/coco --output drawings --compare detr://r50 outputs/mine/model_best.pth
"""

from __future__ import annotations

import argparse
from pathlib import Path

from d2_detr.checkpoint.model_config import load_trained_config
from d2_detr.cli.options import add_config_options, config_opts, whole_number
from d2_detr.config import load_config
from d2_detr.utils.command_line import CommandParser
from d2_detr.visualization.attention import POINTS
from d2_detr.visualization.figures import show_in_windows
from d2_detr.workflows.visualize import compare, visualize


def parse_args() -> argparse.Namespace:
    """Parse the options of `visualize`."""
    parser = CommandParser("visualize", __doc__)
    add = parser.add_argument
    add_config_options(parser)
    add("--output", required=True, type=Path, metavar="FOLDER", dest="folder", help="where to write")
    add("--num", type=whole_number(1, 10_000), default=12, help="number of images from the test set (default 12)")
    add("--threshold", type=float, help="minimum score of a detection (default: the model's best, else 0.7)")
    help_attention = "images with attention (default 2; not with --compare)"
    add("--attention", type=whole_number(0, 10_000), default=2, metavar="N", help=help_attention)
    add("--point", type=float, nargs=2, action="append", metavar=("X", "Y"),
        help="point in [0, 1] of the image from which the encoder's attention is shown; may be repeated")  # fmt: skip
    add("--compare", nargs=2, metavar=("A", "B"), help="two models, and the curves of their trainings, side by side")
    add("--show", action="store_true", help="also open overview, curves and attention in windows")
    return parser.parse_args()


def main() -> None:
    """Run `d2_detr visualize`."""
    args = parse_args()
    load = load_config if args.compare else load_trained_config
    cfg = load(args.config_file, config_opts(args), args.data)
    options = {"number": args.num, "threshold": args.threshold}
    if args.compare:
        written = compare(cfg, args.compare, args.folder, opts=args.opts, **options)
    else:
        written = visualize(cfg, args.folder, attention=args.attention, points=args.point or POINTS, **options)
    models = " and ".join(args.compare or [cfg.MODEL.WEIGHTS])
    print(f"{models}: written to {args.folder}; for an overview see {', '.join(path.name for path in written)}")
    if args.show:
        show_in_windows(written)
