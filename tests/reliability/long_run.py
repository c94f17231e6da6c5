"""A long training of the compact model, watched from outside: does anything grow?

    python tests/reliability/long_run.py OUTPUT [ITERATIONS]

The images are drawn, as those of `d2_detr demo`. Writes OUTPUT/long_run.png and prints the first and the last
values.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import psutil
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from d2_detr.visualization.figures import file_style, save_png, style_axes  # noqa: E402

SECONDS = 5.0  # between samples
PANELS = {"memory (MB)": "rss", "open files": "files", "threads": "threads", "log files (MB)": "logs"}


def sample(process: psutil.Process, folder: Path) -> dict[str, float]:
    """Measure the processes of a training, and what they have written except checkpoints."""
    tree = [process, *process.children(recursive=True)]
    logs = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pth"]
    return {
        "time": time.monotonic(),
        "rss": sum(p.memory_info().rss for p in tree) / 1e6,
        "files": sum(p.num_fds() for p in tree),
        "threads": sum(p.num_threads() for p in tree),
        "logs": sum(path.stat().st_size for path in logs) / 1e6,
    }


def watch(folder: Path, iterations: int) -> list[dict[str, float]]:
    """Train, and return the samples."""
    options = f"SOLVER.MAX_ITER {iterations} SOLVER.MAX_EPOCHS 0 SOLVER.STEPS () TEST.EVAL_PERIOD 100 TEST.REPORT False"
    command = [sys.executable, "-m", "d2_detr", "train", "--config", "detr_compact_balloon_drawn.yaml"]
    environment = os.environ | {"DETECTRON2_DATASETS": str(folder / "datasets"), "PYTHONPATH": str(ROOT)}
    prepare = [*command[:3], "prepare-balloon", "--source", "drawn"]
    subprocess.run(prepare, check=True, env=environment)
    process = subprocess.Popen([*command, "--output", folder / "run", *options.split()], env=environment)
    watched, samples = psutil.Process(process.pid), []
    while process.poll() is None:
        time.sleep(SECONDS)
        try:
            samples.append(sample(watched, folder / "run"))
        except psutil.Error:  # a process has ended meanwhile
            continue
    assert process.returncode == 0
    return samples


def step_times(folder: Path) -> list[tuple[int, float]]:
    """Return iterations, and the seconds that each took (median of 20)."""
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    return [(line["iteration"], line["time"]) for line in lines if "time" in line]


def plot(samples: list[dict[str, float]], steps: list[tuple[int, float]], path: Path) -> None:
    """Draw a panel for each quantity."""
    with file_style():
        figure = Figure((12, 2.6), layout="constrained")
        axes = figure.subplots(1, len(PANELS) + 1)
        minutes = [(s["time"] - samples[0]["time"]) / 60 for s in samples]
        for panel, (title, name) in zip(axes, PANELS.items(), strict=False):
            values = [s[name] for s in samples]
            panel.plot(minutes, values)
            style_axes(panel, title, "minutes", x_max=minutes[-1], y_max=1.2 * max(values))
        axes[-1].plot(*zip(*steps, strict=True))
        style_axes(
            axes[-1], "seconds per iteration", "iteration", x_max=steps[-1][0], y_max=1.5 * max(s for _, s in steps)
        )
        save_png(figure, path)


def main() -> None:
    """Run the training of the command line."""
    folder, iterations = Path(sys.argv[1]).absolute(), int(sys.argv[2]) if len(sys.argv) > 2 else 3000
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    samples = watch(folder, iterations)
    steps = step_times(folder / "run")
    plot(samples, steps, folder / "long_run.png")
    for name in PANELS.values():
        print_change(name, [s[name] for s in samples[len(samples) // 10 :]])  # without the start
    print_change("seconds per iteration", [seconds for _, seconds in steps])


def print_change(name: str, values: list[float]) -> None:
    """Print the medians of the first and of the last tenth."""
    tenth = max(1, len(values) // 10)
    print(f"{name}: {median(values[:tenth]):.3g} at first, {median(values[-tenth:]):.3g} at the end")


if __name__ == "__main__":
    main()
