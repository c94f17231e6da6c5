"""The command line: a module per command, whose `main` parses its options and calls a workflow."""

from __future__ import annotations

import difflib
import sys
from importlib import import_module

from d2_detr.utils.command_line import run_command

COMMANDS = {
    "finetune": "fine-tune a trained DETR on your own images",
    "train": "train from a config",
    "evaluate": "measure AP of a model",
    "predict": "detect objects in images",
    "visualize": "draw predictions beside the ground truth, curves and attention",
    "check": "validate a dataset without training",
    "split": "split one annotation file into training and validation",
    "convert": "convert a checkpoint, or describe it",
    "via-to-coco": "convert VIA annotations to COCO format",
    "make-panoptic": "make panoptic annotations from instance masks",
    "prepare-balloon": "download or draw the balloon dataset",
    "benchmark": "time a training step and inference",
    "benchmark-data": "time the start of a training on a dataset as large as COCO",
    "demo": "train on drawn balloons, from end to end",
}


def main() -> None:
    """Run the command that is the first argument: the console script `d2_detr`, and `python -m d2_detr`."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        commands = "\n".join(f"  {name:16} {text}" for name, text in COMMANDS.items())
        print(f"usage: d2_detr COMMAND [OPTIONS]\n\n{commands}\n\nd2_detr COMMAND --help lists the options.")
        return
    if name not in COMMANDS:
        similar = difflib.get_close_matches(name, COMMANDS, n=1)
        meant = f"did you mean {similar[0]}?" if similar else f"expected one of {', '.join(COMMANDS)}"
        sys.exit(f"error: unknown command {name}; {meant}")
    run(name)


def run(name: str) -> None:
    """Run a command with the arguments in sys.argv, as the scripts in tools/ do."""
    run_command(import_module(f"d2_detr.cli.{name.replace('-', '_')}").main)
