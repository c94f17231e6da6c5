"""Options that several commands share, and what they mean as KEY VALUE pairs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from d2_detr.config.checking import whole
from d2_detr.utils.command_line import CommandParser
from d2_detr.utils.errors import InputError

MAX_PROCESSES = 1024


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return the type of an option for whole numbers from `least` to `most`."""
    rule = whole(least, most)

    def int_(text: str) -> int:
        value = int(text)
        if not rule.accepts(value):
            raise argparse.ArgumentTypeError(f"{text}: expected {rule.expected}")
        return value

    int_.__name__ = "int"  # which argparse says about what is no number
    return int_


def add_config_options(parser: CommandParser) -> None:
    """Add --config, --data, --weights and KEY VALUE pairs."""
    add_config_file(parser)
    add_data_option(parser)
    parser.add_argument("--weights", metavar="FILE", help="model: path, address or name (MODEL.WEIGHTS)")
    add_opts(parser)


def add_config_file(parser: CommandParser) -> None:
    """Add --config."""
    help = "a path, or a name in configs/"
    parser.add_argument("--config", "--config-file", dest="config_file", default="", metavar="FILE", help=help)


def required_config_file(args: argparse.Namespace) -> str:
    """Return --config.

    Raises:
        InputError: it is missing.
    """
    if not args.config_file:
        raise InputError("--config is missing: give a file, or the name of one in configs/")
    return args.config_file


def add_data_option(parser: CommandParser) -> None:
    """Add --data and --strict."""
    parser.add_argument("--data", "--coco_path", default="", metavar="FOLDER", help="custom dataset: annotated images")
    parser.add_argument("--strict", action="store_true", help="do not drop annotations that cannot be trained on")


def add_opts(parser: CommandParser) -> None:
    """Add the KEY VALUE pairs."""
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="pairs that override the config")


def add_launch_options(parser: CommandParser) -> None:
    """Add the number of processes, on one machine or several."""
    add = parser.add_argument
    number = whole_number(1, MAX_PROCESSES)
    add(
        "--num-gpus", type=number, default=1, metavar="N", help="GPUs, or processes on the CPU, per machine (default 1)"
    )
    add("--num-machines", type=number, default=1, metavar="N", help="(default 1)")
    add("--machine-rank", type=int, default=0, metavar="N", help="number of this machine, from 0")
    add("--dist-url", default="", metavar="URL", help="where several machines meet: tcp://HOST:PORT of machine 0")


def launch_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `launch` that add_launch_options has added."""
    return {
        "num_processes": args.num_gpus,
        "num_machines": args.num_machines,
        "machine_rank": args.machine_rank,
        "dist_url": args.dist_url,
    }


def config_opts(args: argparse.Namespace) -> list[object]:
    """Return the options with a config key as KEY, VALUE, ..., before the pairs that were given, which win."""
    opts: list[object] = []
    for option, key in {"weights": "MODEL.WEIGHTS", "output": "OUTPUT_DIR"}.items():
        if value := getattr(args, option, None):
            opts += [key, str(value)]
    if args.strict:
        opts += ["DATASETS.STRICT", True]
    return [*opts, *args.opts]
