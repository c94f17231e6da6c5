"""Time a training step and an inference of a config, on made-up pictures.

python tools/benchmark.py --config detr_compact_balloon.yaml --batch 32 --size 128 128 MODEL.DETR.AUTOCAST off
"""

from __future__ import annotations

import argparse

from d2_detr.engine.benchmark import benchmark
from d2_detr.utils.command_line import ToolParser
from d2_detr.utils.errors import one_clear_message
from d2_detr.workflows.setup import load_config


def parse_args() -> argparse.Namespace:
    parser = ToolParser(__doc__)
    parser.add_argument("--config", "--config-file", dest="config_file", default="", metavar="FILE")
    parser.add_argument("--batch", type=int, default=2, help="pictures in a batch (default 2)")
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1066), metavar=("H", "W"), help="(default 800 1066)")
    parser.add_argument("--repeats", type=int, default=5, help="calls of which the median is shown (default 5)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs that override the config")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = load_config(args.config_file, args.opts)
    if cfg.MODEL.DETR.NUM_CLASSES == -1:
        cfg.MODEL.DETR.NUM_CLASSES = 1  # there is no data to count
    results = benchmark(cfg, batch_size=args.batch, size_hw=tuple(args.size), repeats=args.repeats)
    for name, seconds in results.items():
        print(f"{name:14} {seconds:8.3f} s a batch  {args.batch / seconds:8.2f} pictures a second")


if __name__ == "__main__":
    with one_clear_message():
        main()
