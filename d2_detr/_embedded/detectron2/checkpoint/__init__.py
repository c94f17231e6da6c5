"""Checkpoints: fvcore's `Checkpointer`, with safe loading and atomic writes."""

import os
from typing import Any

import torch
from fvcore.common.checkpoint import Checkpointer, PeriodicCheckpointer
from torch import nn

from detectron2._missing import missing, missing_attribute
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager, atomic_write

__all__ = ["Checkpointer", "DetectionCheckpointer", "PeriodicCheckpointer"]
__getattr__ = missing_attribute(__name__)


class DetectionCheckpointer(Checkpointer):
    """Save and load a model and checkpointables, such as an optimizer, as `.pth`.

    A file has {"model": state dict, **{name: state dict of each checkpointable}, **extra values}. By default only the
    main process writes it.
    """

    def __init__(self, model: nn.Module, save_dir: str = "", *, save_to_disk: bool | None = None, **checkpointables):
        if save_to_disk is None:
            save_to_disk = comm.is_main_process()
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.path_manager = PathManager

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a file or URL ("": nothing) without running its code; return extra values."""
        path, _, query = path.partition("?")
        if query:
            raise ValueError(missing(f"the query {query!r} in the address of a checkpoint"))
        return super().load(path, *args, **kwargs)

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `{save_dir}/{name}.pth`, with extra values, as the last checkpoint."""
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: item.state_dict() for key, item in self.checkpointables.items()}
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info(f"Saving checkpoint to {path}")
        with atomic_write(path, "wb") as f:
            torch.save({"model": self.model.state_dict(), **states, **kwargs}, f)
        self.tag_last_checkpoint(f"{name}.pth")

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        with atomic_write(os.path.join(self.save_dir, "last_checkpoint"), "w") as f:
            f.write(last_filename_basename)

    def _load_file(self, f: str) -> dict[str, Any]:
        if f.endswith((".pkl", ".pyth")):
            raise NotImplementedError(missing(f"reading {os.path.splitext(f)[1]} checkpoints ({f})"))
        loaded = torch.load(f, map_location="cpu", weights_only=True)
        return loaded if "model" in loaded else {"model": loaded}
