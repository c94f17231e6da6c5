"""Functions that the processes of test_launch.py run; spawned processes import this module by name."""

from __future__ import annotations

from pathlib import Path

import torch

from d2_detr.config import load_config, resolve_config
from d2_detr.config.keys import CUSTOM_VAL
from d2_detr.data.datasets import custom, load_datasets, split_cache
from d2_detr.data.loaders import build_test_loader
from d2_detr.engine.trainer import Trainer
from d2_detr.evaluation.evaluate import evaluate_model
from d2_detr.utils.errors import InputError

from detectron2.engine import HookBase
from detectron2.utils import comm

MESSAGE = "a.json: wrong\n\nZeroDivisionError: not the end"  # like the end of a traceback


class KeepLosses(HookBase):
    """Keep the logged losses of every step."""

    def __init__(self):
        self.losses: list[dict[str, float]] = []

    def after_step(self) -> None:
        latest = self.trainer.storage.latest()
        self.losses.append({name: value for name, (value, _) in latest.items() if "loss" in name})


def train(opts: list[str], folder: Path) -> None:
    """Train, and write losses and weights of this rank."""
    torch.manual_seed(1)
    trainer = Trainer(load_config("detr_compact_balloon_drawn.yaml", opts))
    keep = KeepLosses()
    trainer.register_hooks([keep])
    trainer.train()
    weights = {name: p.detach() for name, p in trainer.model.named_parameters()}
    weights = {name.removeprefix("module."): p for name, p in weights.items()}
    torch.save({"losses": keep.losses, "weights": weights}, folder / f"rank{comm.get_rank()}.pt")


class KeepStatistics(HookBase):
    """Keep the batch norm statistics of the last step."""

    def after_step(self) -> None:
        self.statistics = running_means(self.trainer.model)


def running_means(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers() if "running_mean" in name}


def evaluate_trained(opts: list[str], folder: Path) -> None:
    """Train, and write the batch norm statistics of this rank after the last step and in the evaluation."""
    trainer = Trainer(load_config("detr_compact_balloon_drawn.yaml", opts))
    evaluated = []
    trainer._measure = lambda: evaluated.append(running_means(trainer.model)) or {}
    keep = KeepStatistics()
    trainer.register_hooks([keep])
    trainer.train()
    torch.save({"trained": keep.statistics, "evaluated": evaluated[-1]}, folder / f"rank{comm.get_rank()}.pt")


def evaluate(opts: list[str], root: Path, folder: Path) -> None:
    """Evaluate an untrained model on `custom_val`, and write which images this rank saw and the metrics."""
    torch.manual_seed(1)
    more = ["DATASETS.TEST", f"('{CUSTOM_VAL}',)", "MODEL.DETR.NUM_CLASSES", "3"]
    cfg = load_config("detr_compact_balloon_drawn.yaml", [*opts, *more], root)
    datasets = load_datasets(cfg, evaluation_only=True)
    loader = build_test_loader(cfg, datasets.test[0])
    seen = [inputs["image_id"] for batch in loader for inputs in batch]
    results = evaluate_model(resolve_config(cfg, datasets), Trainer.build_model(cfg), datasets.test)
    torch.save({"seen": seen, "results": dict(results)}, folder / f"rank{comm.get_rank()}.pt")


def load(opts: list[str], root: Path, folder: Path) -> None:
    """Read a custom dataset whose annotation files are large enough for the cache, and write how this rank did it."""
    split_cache.MIN_BYTES = 1
    parsed = []
    encode_coco, parse_coco = custom.encode_coco, custom.parse_coco
    custom.encode_coco = lambda path, *args: parsed.append(path.name) or encode_coco(path, *args)
    custom.parse_coco = lambda *args, source, **kwargs: (
        parsed.append(source.name) or parse_coco(*args, source=source, **kwargs)
    )
    datasets = load_datasets(load_config("detr_r50_custom.yaml", opts, root))
    records = [str(record) for record in datasets.train_records]
    torch.save({"parsed": parsed, "records": records}, folder / f"rank{comm.get_rank()}.pt")


def fail(rank: int, error: str) -> None:
    """Raise an error in one rank while the others wait for it."""
    if comm.get_rank() == rank:
        raise InputError(MESSAGE) if error == "input" else ZeroDivisionError(f"in rank {rank}")
    comm.synchronize()


def write_rank(folder: Path) -> None:
    (folder / f"rank{comm.get_rank()}-of-{comm.get_world_size()}-local{comm.get_local_rank()}").touch()


def write_threads(folder: Path) -> None:
    (folder / f"{comm.get_rank()}").write_text(str(torch.get_num_threads()))
