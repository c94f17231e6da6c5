"""Detect objects in images with a trained model: draw them, and write predictions.json.

d2_detr predict --weights outputs/mine/model_best.pth --input photos --output detections
d2_detr predict --weights detr://r50 --input 'photos/**/*.jpg' cat.png --output detections --threshold 0.9

The checkpoint is enough, in any layout: no config, no dataset. predictions.json is in COCO's results format. With a
panoptic model, both have its segments, things and stuff. The default threshold is the one with the best F1 on the
validation images of the model's training; if the checkpoint has none, it is 0.7.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from tabulate import tabulate

from d2_detr.cli.options import add_opts, whole_number
from d2_detr.data.images import find_images
from d2_detr.inference.folder import RESULTS, check_output, predict_files
from d2_detr.inference.predictor import Predictor
from d2_detr.utils.command_line import CommandParser
from d2_detr.utils.errors import InputError

MAX_PROBLEMS = 3  # unreadable images that are named


def parse_args() -> argparse.Namespace:
    """Parse the options of `predict`."""
    parser = CommandParser("predict", __doc__)
    add = parser.add_argument
    add("--weights", required=True, metavar="FILE", help="trained model: path, address or name")
    add("--input", required=True, nargs="+", metavar="PATH", help="images, folders, patterns")
    add("--output", required=True, type=Path, metavar="FOLDER", help="where to write")
    add("--threshold", type=float, help="minimum score of a detection (default: see above)")
    add(
        "--batch-size",
        "--batch",
        type=whole_number(1, 1024),
        default=1,
        metavar="N",
        help="images per batch (default 1)",
    )
    add("--device", default="", help="cpu, cuda, cuda:1 (default: cuda if available)")
    add("--no-images", "--no-pictures", action="store_true", help=f"write only {RESULTS}")
    add_opts(parser)
    return parser.parse_args()


def main() -> None:
    """Run `d2_detr predict`."""
    args = parse_args()
    images = find_images(args.input)
    check_output(args.output, images)
    predictor = Predictor(
        args.weights, threshold=args.threshold, device=args.device, batch_size=args.batch_size, opts=args.opts
    )
    detections, problems = predict_files(predictor, images, args.output, draw=not args.no_images)
    if len(problems) < len(images):
        print(summarize(detections, len(images) - len(problems), predictor.threshold))
        print(f"written to {args.output}/{RESULTS}" + ("" if args.no_images else ", with the drawn images beside it"))
    if problems:
        shown = "; ".join(problems[:MAX_PROBLEMS] + ["..."] * (len(problems) > MAX_PROBLEMS))
        raise InputError(f"{len(problems)} of {len(images)} images could not be read: {shown}")


def summarize(detections: list[dict], num_images: int, threshold: float) -> str:
    """Return a table of the detections per class."""
    if not detections:
        where = _counted(num_images, "image")
        return f"No detection in {where} has a score of {threshold:g} or more; try a lower --threshold."
    objects = Counter(entry["category_name"] for entry in detections)
    images = Counter(name for name, _ in {(entry["category_name"], entry["image_id"]) for entry in detections})
    rows = [(name, number, images[name]) for name, number in objects.most_common()]
    table = tabulate(rows, ("class", "objects", "images"), tablefmt="simple")
    num_with_any = len({entry["image_id"] for entry in detections})
    where = f"{num_with_any} of {_counted(num_images, 'image')}"
    return f"{table}\n{_counted(len(detections), 'object')} in {where}, with a score of {threshold:g} or more"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
