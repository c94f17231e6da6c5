"""Timing of the start of a training on a dataset as large as COCO: until the first batch is ready."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from d2_detr.config import load_config
from d2_detr.engine.distributed import launch
from d2_detr.engine.trainer import Trainer
from d2_detr.utils.command_line import run_command
from d2_detr.utils.errors import InputError
from d2_detr.workflows.prepare_run import prepare_run

from detectron2.utils import comm

CONFIG = "detr_r50_custom.yaml"
MEGABYTE = 1e6
SAMPLING_S = 0.2

Measured = dict[str, float]


def benchmark_data(folder: Path, *, num_processes: int = 1, opts: Sequence[object] = ()) -> dict[str, Measured]:
    """Start a training twice, each time in a fresh interpreter, with an empty cache the first time.

    Files are probably in memory, from which the operating system reads them.

    Args:
        folder: of a custom dataset.
        num_processes: if there are several, start a third time, with so many.
        opts: KEY, VALUE, ... pairs for the config.

    Returns:
        For each start, the seconds of its steps and in `total`, and megabytes: `memory_mb` when the first batch is
        ready and `peak_mb` before, of all processes together. Memory that processes share counts once.

    Raises:
        InputError: a start fails; it has printed why.
    """
    starts = {"first start": 1, "second start": 1}
    if num_processes > 1:
        starts[f"{num_processes} processes"] = num_processes
    results = {}
    with tempfile.TemporaryDirectory(prefix="d2_detr_") as scratch, _cache_in(Path(scratch) / "cache"):
        for name, number in tqdm(starts.items(), "Starting trainings"):
            results[name] = _measure_start(folder, Path(scratch), number, opts)
    return results


def _measure_start(folder: Path, scratch: Path, num_processes: int, opts: Sequence[object]) -> Measured:
    report = scratch / "report.json"
    report.unlink(missing_ok=True)
    start = partial(_start, folder, scratch, num_processes, opts, time.time())
    process = multiprocessing.get_context("spawn").Process(target=run_command, args=(start,))
    process.start()
    peak = 0.0
    while process.is_alive():
        peak = max(peak, _memory_of_tree(process.pid or 0))
        process.join(SAMPLING_S)
    if process.exitcode or not report.is_file():
        raise InputError(f"{folder}: the training could not be started; the messages above say why")
    return json.loads(report.read_text()) | {"peak_mb": peak / MEGABYTE}


def _start(folder: Path, scratch: Path, num_processes: int, opts: Sequence[object], started: float) -> None:
    """Start a training in this process and, if there are several, in others."""
    # The workers of a loader are started as in a process that was not spawned.
    multiprocessing.set_start_method(None, force=True)  # type: ignore[arg-type]
    options = {
        "OUTPUT_DIR": str(scratch / "output"),
        "MODEL.DEVICE": "cpu",
        "MODEL.WEIGHTS": "",  # what the model has learned does not matter
        "SOLVER.IMS_PER_BATCH": max(2, num_processes),
    }
    all_opts = [*(part for option in options.items() for part in option), *opts]
    args = (folder, all_opts, scratch / "report.json", started)
    launch(_start_one, num_processes=num_processes, device="cpu", args=args)


def _start_one(folder: Path, opts: Sequence[object], report: Path, started: float) -> None:
    """Do what the train command does until the first iteration, and report how long each step takes."""
    times = {"imports": time.time()}
    cfg, datasets = prepare_run(load_config(CONFIG, opts, folder))
    times["data and checks"] = time.time()
    trainer = Trainer(cfg, datasets)
    times["trainer"] = time.time()
    next(iter(trainer.build_train_loader(trainer.cfg)))
    times["first batch"] = time.time()
    comm.synchronize()  # all are ready, and none has ended
    memory = sum(comm.all_gather(_memory(os.getpid())))
    if comm.is_main_process():
        seconds = _differences(started, times) | {"total": times["first batch"] - started}
        report.write_text(json.dumps(seconds | {"memory_mb": memory / MEGABYTE}))


def _differences(start: float, times: Mapping[str, float]) -> Measured:
    seconds = {}
    for name, end in times.items():
        seconds[name] = end - start
        start = end
    return seconds


@contextmanager
def _cache_in(folder: Path) -> Iterator[None]:
    """Let processes that are started have their cache in a folder."""
    before = os.environ.get("D2_DETR_CACHE")
    os.environ["D2_DETR_CACHE"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("D2_DETR_CACHE")
        if before is not None:
            os.environ["D2_DETR_CACHE"] = before


def _memory_of_tree(pid: int) -> int:
    """Return the memory of a process and its descendants in bytes."""
    try:
        children = [int(c) for path in Path(f"/proc/{pid}/task").glob("*/children") for c in path.read_text().split()]
    except OSError:  # it has ended
        children = []
    return _memory(pid) + sum(map(_memory_of_tree, children))


def _memory(pid: int) -> int:
    """Return the proportional memory of a process in bytes; 0 if it has ended, or if this system is not Linux."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def as_rows(results: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Return the headers and rows of a table of the results."""
    columns = list(dict.fromkeys(column for measured in results.values() for column in measured))
    rows = [[name, *(measured.get(column) for column in columns)] for name, measured in results.items()]
    return ["", *(column.replace("_mb", " in MB") for column in columns)], rows
