"""Share out one annotation file in COCO format, with its pictures, into what to train on and what to validate with.

python tools/split_coco.py annotations.json --pictures photos --output path/to/coco
python tools/finetune.py --data path/to/coco

Every class gets its share of both parts, pictures without objects too. The pictures are linked, not copied, where the
disk allows it. Pictures of one scene belong in one part: where there are such, split them by hand.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from tabulate import tabulate

from d2_detr.data.formats.coco import read_coco
from d2_detr.data.splits import write_split
from d2_detr.utils.command_line import ToolParser
from d2_detr.utils.errors import InputError, one_clear_message


def parse_args() -> argparse.Namespace:
    parser = ToolParser(__doc__)
    parser.add_argument(
        "annotations", type=Path, metavar="FILE", help="in COCO format, as tools for labelling export it"
    )
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="default: the folder of FILE")
    parser.add_argument("--output", type=Path, metavar="FOLDER", required=True, help="dataset to write")
    parser.add_argument("--val-share", type=float, default=0.2, help="share of the validation pictures (default 0.2)")
    parser.add_argument("--seed", type=int, default=0, help="another one shares out otherwise (default 0)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    pictures = args.pictures or args.annotations.parent
    if not pictures.is_dir():
        raise InputError(f"{pictures}: no such folder; --pictures says where the pictures lie")
    coco = read_coco(args.annotations, pictures)
    parts = write_split(coco, pictures, args.output, val_share=args.val_share, seed=args.seed)
    objects = [Counter(annotation["category_id"] for annotation in part.annotations) for part in parts.values()]
    rows = [[name, *(count[category_id] for count in objects)] for category_id, name in coco.categories.items()]
    rows.append(["pictures", *(len(part.images) for part in parts.values())])
    print(tabulate(rows, ["objects of", *parts]))
    print(f"written to {args.output}; to train: python tools/finetune.py --data {args.output}")


if __name__ == "__main__":
    with one_clear_message():
        main()
