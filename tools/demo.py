"""Fine-tuning DETR on balloons from end to end: prepare, train, evaluate, look. `make demo` runs this.

Drawn balloons by default; the photographs with BALLOON_DIR=path (unpacked) or DATA=real (download). They are too few to
learn from nothing and start from the model of the drawn ones, where it is there. Run again, the demo goes on where it
was interrupted and reuses what is complete.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from d2_detr.data.datasets import balloon
from d2_detr.visualization.curves import read_metrics

# As one would type it: the virtual environment may not be activated.
PYTHON = os.path.relpath(sys.executable) if Path(sys.prefix).is_relative_to(Path.cwd()) else "python"


def main() -> None:
    start = time.time()
    source = os.environ.get("BALLOON_DIR") or os.environ.get("DATA") or "drawn"
    name = "balloon_drawn" if source == "drawn" else "balloon"
    output = Path("outputs") / f"demo_{name}"
    config = ["--config", f"detr_compact_{name}.yaml"]
    pretrained = Path("outputs/demo_balloon_drawn/model_best.pth")
    start_from = ["MODEL.WEIGHTS", str(pretrained)] if source != "drawn" and pretrained.is_file() else []
    weights = ["MODEL.WEIGHTS", str(output / "model_best.pth")]
    go_on = ["--resume"] if (output / "last_checkpoint").is_file() else []
    commands = [
        ["tools/prepare_balloon.py", "--source", source],
        ["tools/train_net.py", *config, *go_on, "OUTPUT_DIR", str(output), *start_from],
        ["tools/train_net.py", *config, "--eval-only", "OUTPUT_DIR", str(output), *weights],
        ["tools/visualize.py", *config, "--output", str(output / "pictures"), "OUTPUT_DIR", str(output), *weights],
    ]
    for command in commands:
        print(f"\n$ {PYTHON} {shlex.join(command)}", flush=True)
        subprocess.run([sys.executable, *command], check=True)
    summarise(name, output, commands, time.time() - start)


def summarise(name: str, output: Path, commands: list[list[str]], seconds: float) -> None:
    folder = balloon.datasets_folder() / name
    train, val = ("{} pictures with {} balloons".format(*balloon.count(folder, split)) for split in balloon.SPLITS)
    results = max(read_metrics(output / "metrics.json"), key=lambda line: line.get("bbox/AP", -1))
    kind = "drawn" if name == "balloon_drawn" else "photographs"
    print(
        f"""
Done in {seconds / 60:.1f} minutes.
  data        {kind}: {train} to train, {val} to validate
  result      AP {results["bbox/AP"]:.1f}, AP50 {results["bbox/AP50"]:.1f} (of 100) on the validation pictures
  look at     {output}/report.html in a browser, {output}/pictures/overview.png (truth and predictions)
  model       {output}/model_best.pth, for tools/predict.py; its config {output}/config.yaml
What ran, to copy:"""
    )
    for command in commands:
        print(f"  {PYTHON} {shlex.join(command)}")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"stopped: {shlex.join(map(str, error.cmd[1:]))} ended with status {error.returncode}")
