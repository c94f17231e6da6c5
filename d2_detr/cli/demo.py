"""Fine-tune DETR on balloons, from end to end: prepare, train, evaluate, visualize. `make demo` runs this.

The balloons are drawn by default; --source real (download) or --source FOLDER (unpacked) takes the photographs, as do
DATA=real and BALLOON_DIR=FOLDER of `make demo`. These are too few to learn from scratch, and start from the model of
the drawn balloons if there is one. If the demo is run again, it continues where it was interrupted and reuses what is
complete.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from d2_detr.checkpoint.resume import has_checkpoint
from d2_detr.data.datasets import balloon
from d2_detr.data.datasets.catalog import datasets_folder
from d2_detr.utils.command_line import CommandParser, command, command_argv
from d2_detr.visualization.curves import read_metrics


def main() -> None:
    """Run `d2_detr demo`."""
    parser = CommandParser("demo", __doc__)
    default = os.environ.get("BALLOON_DIR") or os.environ.get("DATA") or "drawn"
    parser.add_argument("--source", default=default, help='"drawn", "real", or the folder with train/ and val/')
    source = parser.parse_args().source
    start = time.time()
    name = "balloon_drawn" if source == "drawn" else "balloon"
    output = Path("outputs") / f"demo_{name}"
    config = ["--config", f"detr_compact_{name}.yaml"]
    pretrained, weights = Path("outputs/demo_balloon_drawn/model_best.pth"), output / "model_best.pth"
    initial = ["--weights", pretrained] if source != "drawn" and pretrained.is_file() else []
    resume = ["--resume"] if has_checkpoint(output) else []
    commands: list[tuple[str, list[object]]] = [
        ("prepare-balloon", ["--source", source]),
        ("train", [*config, *resume, "--output", output, *initial]),
        ("evaluate", [*config, "--output", output, "--weights", weights]),
        ("visualize", [*config, "--output", output / "drawings", "--weights", weights, "OUTPUT_DIR", output]),
    ]
    for step, arguments in commands:
        print(f"\n$ {command(step, *arguments)}", flush=True)
        _run(command_argv(step, *arguments))
    _summarize(name, output, [command(step, *arguments) for step, arguments in commands], time.time() - start)


def _run(argv: list[str]) -> None:
    """Run a command and wait for it, also after Ctrl-C, which it receives too and needs time to react to."""
    with subprocess.Popen(argv) as process:  # nosec B603  # a list of its own arguments, no shell
        previous = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            status = process.wait()
        finally:
            signal.signal(signal.SIGINT, previous)
    if status:
        sys.exit(128 - status if status < 0 else status)  # as shells report a signal


def _summarize(name: str, output: Path, commands: list[str], seconds: float) -> None:
    folder = datasets_folder() / name
    train, val = ("{} images with {} balloons".format(*balloon.count(folder, split)) for split in balloon.SPLITS)
    results = max(read_metrics(output / "metrics.json"), key=lambda line: line.get("bbox/AP", -1))
    kind = "drawn" if name == "balloon_drawn" else "photographs"
    print(
        f"""
Done in {seconds / 60:.1f} minutes.
  data        {kind}: {train} for training, {val} for validation
  result      AP {results["bbox/AP"]:.1f}, AP50 {results["bbox/AP50"]:.1f} (of 100) on the validation images
  look at     {output}/report.html in a browser, {output}/drawings/overview.png (ground truth and predictions)
  model       {output}/model_best.pth, for {command("predict")}; its config is {output}/config.yaml
These commands ran:"""
    )
    for line in commands:
        print(f"  {line}")
