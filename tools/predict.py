"""Find objects in pictures with a trained model, and write the pictures with them and predictions.json.

python tools/predict.py --weights outputs/mine/model_best.pth --input photos --output found
python tools/predict.py --weights detr://r50 --input 'photos/**/*.jpg' cat.png --output found --threshold 0.9

The checkpoint is enough, whatever its layout: no config, no data set. predictions.json is in COCO's results format. Of
a panoptic model both show the segments, things and stuff. Without --threshold the one is taken that was best in the
training of the model, or 0.7 where the checkpoint does not tell.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from tabulate import tabulate

from d2_detr.inference.folder import RESULTS, check_output, find_images, predict_files
from d2_detr.inference.predictor import Predictor
from d2_detr.utils.command_line import ToolParser
from d2_detr.utils.errors import InputError, one_clear_message

PROBLEMS_SHOWN = 3


def parse_args() -> argparse.Namespace:
    parser = ToolParser(__doc__)
    parser.add_argument("--weights", required=True, help="a checkpoint: path, address or name, as detr://r50")
    parser.add_argument("--input", required=True, nargs="+", metavar="PATH", help="pictures, folders, patterns")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="where to write")
    parser.add_argument("--threshold", type=float, help="least score of what is found (default: see above)")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="pictures at once (default 1)")
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:1 (default: cuda where there is one)")
    parser.add_argument("--no-pictures", action="store_true", help=f"write {RESULTS} alone")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs that override the checkpoint's config")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    pictures = find_images(args.input)
    check_output(args.output, pictures)
    predictor = Predictor(
        args.weights, threshold=args.threshold, device=args.device, batch_size=args.batch, opts=args.opts
    )
    found, problems = predict_files(predictor, pictures, args.output, draw=not args.no_pictures)
    if len(problems) < len(pictures):
        print(summary(found, len(pictures) - len(problems), predictor.threshold))
        print(f"written to {args.output}/{RESULTS}" + ("" if args.no_pictures else ", and drawn beside it"))
    if problems:
        shown = "; ".join(problems[:PROBLEMS_SHOWN] + ["..."] * (len(problems) > PROBLEMS_SHOWN))
        raise InputError(f"{len(problems)} of {len(pictures)} pictures could not be read: {shown}")


def summary(found: list[dict], num_pictures: int, threshold: float) -> str:
    if not found:
        looked_at = _counted(num_pictures, "picture")
        return f"Nothing in {looked_at} has a score of {threshold:g} or more; try a lower --threshold."
    objects = Counter(entry["category_name"] for entry in found)
    with_any = Counter(name for name, _ in {(entry["category_name"], entry["image_id"]) for entry in found})
    rows = [(name, number, with_any[name]) for name, number in objects.most_common()]
    table = tabulate(rows, ("class", "objects", "in pictures"), tablefmt="simple")
    num_with_any = len({entry["image_id"] for entry in found})
    in_pictures = f"{num_with_any} of {_counted(num_pictures, 'picture')}"
    return f"{table}\n{_counted(len(found), 'object')} in {in_pictures}, with a score of {threshold:g} or more"


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


if __name__ == "__main__":
    with one_clear_message():
        main()
