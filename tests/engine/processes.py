"""What the processes of a group do in test_launch.py; spawned processes import it by its name."""

from __future__ import annotations

from pathlib import Path

import torch

from d2_detr.data.datasets.custom import VAL, register_custom
from d2_detr.engine.trainer import Trainer
from d2_detr.utils.errors import InputError
from d2_detr.workflows.setup import load_config

from detectron2.data import DatasetCatalog
from detectron2.engine import HookBase
from detectron2.utils import comm


class KeepLosses(HookBase):
    """The losses of every step, as they are logged."""

    def __init__(self):
        self.losses: list[dict[str, float]] = []

    def after_step(self) -> None:
        latest = self.trainer.storage.latest()
        self.losses.append({name: value for name, (value, _) in latest.items() if "loss" in name})


def train(opts: list[str], folder: Path) -> None:
    """Train, and write losses and weights of this rank."""
    torch.manual_seed(0)
    trainer = Trainer(load_config("detr_compact_balloon_drawn.yaml", opts))
    keep = KeepLosses()
    trainer.register_hooks([keep])
    trainer.train()
    weights = {name: p.detach() for name, p in trainer.model.named_parameters()}
    weights = {name.removeprefix("module."): p for name, p in weights.items()}
    torch.save({"losses": keep.losses, "weights": weights}, folder / f"rank{comm.get_rank()}.pt")


class KeepCounts(HookBase):
    """What batch norm has counted behind the last step."""

    def after_step(self) -> None:
        self.counts = running_means(self.trainer.model)


def running_means(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers() if "running_mean" in name}


def evaluate_trained(opts: list[str], folder: Path) -> None:
    """Train, and write what batch norm has counted in this rank, behind the training and in the evaluation."""
    trainer = Trainer(load_config("detr_compact_balloon_drawn.yaml", opts))
    evaluated = []
    trainer.test = lambda cfg, model: evaluated.append(running_means(model)) or {}
    keep = KeepCounts()
    trainer.register_hooks([keep])
    trainer.train()
    torch.save({"trained": keep.counts, "evaluated": evaluated[-1]}, folder / f"rank{comm.get_rank()}.pt")


def evaluate(opts: list[str], root: Path, folder: Path) -> None:
    """Evaluate an untrained model on `custom_val`, and write which pictures this rank saw and the figures."""
    torch.manual_seed(0)
    register_custom(root)
    of_data = ["DATASETS.TEST", f"('{VAL}',)", "MODEL.DETR.NUM_CLASSES", "3"]
    cfg = load_config("detr_compact_balloon_drawn.yaml", [*opts, *of_data])
    seen = [inputs["image_id"] for batch in Trainer.build_test_loader(cfg, VAL) for inputs in batch]
    results = Trainer.test(cfg, Trainer.build_model(cfg))
    assert len(DatasetCatalog.get(VAL)) > 0
    torch.save({"seen": seen, "results": dict(results)}, folder / f"rank{comm.get_rank()}.pt")


def fail(rank: int, error: str) -> None:
    """One rank fails, the others wait for it."""
    if comm.get_rank() == rank:
        raise InputError("the file is broken") if error == "input" else ZeroDivisionError(f"in rank {rank}")
    comm.synchronize()


def write_rank(folder: Path) -> None:
    (folder / f"rank{comm.get_rank()}-of-{comm.get_world_size()}-local{comm.get_local_rank()}").touch()


def write_threads(folder: Path) -> None:
    (folder / f"{comm.get_rank()}").write_text(str(torch.get_num_threads()))
