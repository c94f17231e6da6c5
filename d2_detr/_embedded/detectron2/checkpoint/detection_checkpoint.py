"""Checkpoints: fvcore's `Checkpointer`, which here runs no code from a file and leaves no half-written one behind."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import torch
from fvcore.common.checkpoint import Checkpointer
from torch import nn

from detectron2._missing import missing
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

logger = logging.getLogger(__name__)


class DetectionCheckpointer(Checkpointer):
    """Saves and loads {"model": state dict, **one state dict per checkpointable, **extra values} as `.pth`.

    Only the main process writes, unless `save_to_disk` says otherwise.
    """

    def __init__(self, model: nn.Module, save_dir: str = "", *, save_to_disk: bool | None = None, **checkpointables):
        if save_to_disk is None:
            save_to_disk = comm.is_main_process()
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.path_manager = PathManager

    def load(self, path: str, *args, **kwargs) -> dict[str, Any]:
        """Load a file or URL ("" loads nothing) and return what neither the model nor a checkpointable took."""
        logger.info(f"[DetectionCheckpointer] Loading from {path} ...")
        if path:
            path, _, query = path.partition("?")
            if query.startswith("matching_heuristics"):
                raise NotImplementedError(missing("loading by matching heuristics"))
            if query:
                raise ValueError(f"unknown query in the checkpoint's address: {path}?{query}")
            path = self.path_manager.get_local_path(path)
        return super().load(path, *args, **kwargs)

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `{save_dir}/{name}.pth` with `kwargs` as extra values and make it the last checkpoint."""
        if not self.save_dir or not self.save_to_disk:
            return
        checkpoint = {"model": self.model.state_dict()}
        checkpoint |= {key: item.state_dict() for key, item in self.checkpointables.items()}
        checkpoint |= kwargs
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info(f"Saving checkpoint to {path}")
        with self._open_complete(path, "wb") as f:
            torch.save(checkpoint, f)
        self.tag_last_checkpoint(f"{name}.pth")

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        with self._open_complete(os.path.join(self.save_dir, "last_checkpoint"), "w") as f:
            f.write(last_filename_basename)

    @contextmanager
    def _open_complete(self, path: str, mode: str) -> Iterator[IO]:
        """Open for writing; a local file takes its name only once it is complete."""
        part = path if "://" in path else f"{path}.part"
        with self.path_manager.open(part, mode) as f:
            yield f
        if part != path:
            os.replace(part, path)

    def _load_file(self, f: str) -> dict[str, Any]:
        if f.endswith((".pkl", ".pyth")):
            raise NotImplementedError(missing(f"reading {os.path.splitext(f)[1]} checkpoints ({f})"))
        loaded = self._torch_load(f)
        return loaded if "model" in loaded else {"model": loaded}

    def _torch_load(self, f: str) -> dict[str, Any]:
        return torch.load(f, map_location="cpu", weights_only=True)

    def _load_model(self, checkpoint: dict[str, Any]):
        incompatible = super()._load_model(checkpoint)
        for name in ("pixel_mean", "pixel_std"):  # restate the config; older files lack them
            if name in incompatible.missing_keys and name in dict(self.model.named_buffers(recurse=False)):
                incompatible.missing_keys.remove(name)
        return incompatible
