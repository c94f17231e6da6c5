"""Loading and saving checkpoints of Detr."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from d2_detr.checkpoint.adapt import PARTS, Adaptation, adapt
from d2_detr.checkpoint.hugging_face import weights_file
from d2_detr.checkpoint.layouts import StateDict
from d2_detr.checkpoint.metadata import checkpoint_metadata
from d2_detr.checkpoint.read import read_checkpoint
from d2_detr.checkpoint.weights import local_weights
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError, error_context
from d2_detr.utils.files import atomic_write

from detectron2.checkpoint import DetectionCheckpointer

BEST = "model_best"
LAST = "model_last"
NOT_FROZEN = ("mask head",)  # the one part that a detector to freeze need not hold


class DetrCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer for checkpoints of DETR in every layout of `convert`; none of them can run code.

    Files are replaced atomically.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        label_map: LabelMap | None = None,
        config: str = "",
        may_reinitialize: Collection[str] = PARTS,
        save_to_disk: bool | None = None,
        **checkpointables: Any,
    ):
        """
        Args:
            label_map: the classes of the model, saved with it, and compared with those of what is loaded.
            config: the config of the model as YAML, saved with it.
            may_reinitialize: which of PARTS may start anew where a checkpoint does not hold them, or not as the model has
                them (a class head of another size); for others that is an error.
        """
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.label_map = label_map
        self.config = config
        self.may_reinitialize = may_reinitialize
        self.weights = self.model.state_dict  # what is saved as the model
        self.saved_last = ""  # name of the newest file of this run that it can go on from

    def load(self, path: str, *args: object, **kwargs: object) -> dict[str, Any]:
        """Load from a path, an https address, or a published name (see weights.py); "" loads nothing.

        Raises:
            FileNotFoundError, ConnectionError, InputError: the file cannot be had or read, or is of another model.
        """
        self._parsed_url_during_load = None  # Detectron2 leaves it set when a load fails, and refuses the next one
        return super().load(str(_weights_file(path)) if path else path, *args, **kwargs)

    def load_frozen(self, path: str) -> None:
        """Load a detector that is not trained, over what was loaded before, from whatever `load` takes.

        Raises:
            FileNotFoundError, ConnectionError, InputError: as `load`, or its classes or queries are not the model's.
        """
        checkpoint, fit = read_adapted(path, self.model.state_dict(), may_reinitialize=NOT_FROZEN)
        for note in fit.notes:
            self.logger.info("%s: %s", path, note)
        self._compare_names(path, checkpoint_metadata(checkpoint).label_map)
        self.model.load_state_dict(fit.state_dict, strict=False)
        self.logger.info(
            "MODEL.DETR.FROZEN_WEIGHTS: the %d tensors of %s win over those of MODEL.WEIGHTS; all but the mask head is "
            "frozen", len(fit.state_dict), path,
        )  # fmt: skip

    def save(self, name: str, **kwargs: object) -> None:
        """Write a checkpoint that a run can go on from. That of the best model is only to be used: it does without the
        optimizer, which would triple its size."""
        if not self.save_dir or not self.save_to_disk:
            return
        content = {"model": self.weights(), **kwargs}
        if name != BEST:
            content |= {key: checkpointable.state_dict() for key, checkpointable in self.checkpointables.items()}
        if self.label_map:
            content["label_map"] = self.label_map.to_dict()
        if self.config:
            content["config"] = self.config
        path = Path(self.save_dir) / f"{name}.pth"
        self.logger.info("Saving checkpoint to %s", path)
        with atomic_write(path) as temporary:
            torch.save(content, temporary)
        if name != BEST:
            self.tag_last_checkpoint(path.name)
            self.saved_last = path.name

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        with atomic_write(Path(self.save_dir) / "last_checkpoint") as temporary:
            temporary.write_text(last_filename_basename)

    def _load_file(self, filename: str) -> dict[str, Any]:
        checkpoint, fit = read_adapted(filename, self.model.state_dict(), may_reinitialize=self.may_reinitialize)
        for note in fit.notes:
            self.logger.info("%s: %s", filename, note)
        metadata = checkpoint_metadata(checkpoint)
        for warning in [*fit.left_out.values(), *filter(None, [metadata.warning])]:
            self.logger.warning("%s: %s", filename, warning)
        self._compare_names(filename, metadata.label_map)
        return checkpoint | {"model": fit.state_dict}

    def _log_incompatible_keys(self, incompatible) -> None:
        """fvcore's, without the names of what is missing: _load_file has told of it."""
        super()._log_incompatible_keys(incompatible._replace(missing_keys=[]))

    def _compare_names(self, filename: str, label_map: LabelMap | None) -> None:
        ours, theirs = (m.names if m else () for m in (self.label_map, label_map))
        if ours and theirs and len(ours) == len(theirs) and ours != theirs:
            self.logger.warning(
                "%s was trained for the classes %s; here they are taken for %s, in this order",
                filename, ", ".join(theirs), ", ".join(ours),
            )  # fmt: skip


def read_adapted(
    path: str, model: StateDict, *, may_reinitialize: Collection[str]
) -> tuple[dict[str, Any], Adaptation]:
    """A checkpoint, and its weights as a model with this state dict takes them. No tensor of the model is touched.

    Args:
        may_reinitialize: see DetrCheckpointer.

    Raises:
        FileNotFoundError, ConnectionError, InputError: the file cannot be had or read, or does not fit the model.
    """
    file = _weights_file(path)
    checkpoint = read_checkpoint(file)
    with error_context(file):
        fit = adapt(checkpoint["model"], model, checkpoint_metadata(checkpoint).label_map)
        for part, sentence in fit.left_out.items():
            if part not in may_reinitialize:
                raise InputError(f"{sentence}; but nothing trains it here, so give a model and data that go together")
    return checkpoint, fit


def _weights_file(path: str) -> Path:
    local = local_weights(path)
    file = weights_file(local) if local.is_dir() else local
    if not file.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    return file
