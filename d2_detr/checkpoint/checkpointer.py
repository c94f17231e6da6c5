"""Load and save checkpoints of Detr."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import nn

from d2_detr.checkpoint.adapt import PARTS, Adaptation, adapt
from d2_detr.checkpoint.layouts import StateDict
from d2_detr.checkpoint.read import Checkpoint, read_checkpoint
from d2_detr.checkpoint.save import save_torch
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError, error_context
from d2_detr.utils.files import atomic_write

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model

logger = logging.getLogger(__name__)

BEST = "model_best"
LAST = "model_last"
NOT_FROZEN = ("mask head",)  # the only part that MODEL.DETR.FROZEN_WEIGHTS may lack


class DetrCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer for every layout of DETR that `convert` reads.

    No file can run code, and files are written atomically.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        label_map: LabelMap | None = None,
        config: str = "",
        may_reinitialize: Collection[str] = PARTS,
        num_kept: int = 1,
        save_to_disk: bool | None = None,
        **checkpointables: Any,
    ):
        """Create a checkpointer.

        Args:
            label_map: the classes of the model, saved with it and compared with those of a loaded checkpoint.
            config: the config of the model as YAML, saved with it.
            may_reinitialize: those of PARTS that keep their initial values if a checkpoint lacks them or has them in
                another size, such as the class head of another dataset. For all others this is an error.
            num_kept: how many model_last.pth are kept, the older ones as model_last_2.pth and so on.
        """
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.label_map = label_map
        self.config = config
        self.may_reinitialize = may_reinitialize
        self.num_kept = num_kept
        self.weights = self.model.state_dict  # called for the weights to save
        self.saved_iteration = -1  # of the newest file of this run that can be resumed from
        self._checkpoint: Checkpoint | None = None  # what `load` is loading

    def load(self, path: str | Checkpoint, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a checkpoint, or any value of MODEL.WEIGHTS (see weights.py); "" loads nothing.

        Raises:
            FileNotFoundError, ConnectionError, InputError: the file cannot be read or does not match the model.
        """
        self._parsed_url_during_load = None  # Detectron2 does not reset it after a failed load, and refuses the next
        if not path:
            return super().load("", *args, **kwargs)
        self._checkpoint = path if isinstance(path, Checkpoint) else read_checkpoint(path)
        try:
            return super().load(str(self._checkpoint.path), *args, **kwargs)
        finally:
            self._checkpoint = None

    def load_frozen(self, path: str) -> None:
        """Load a detector that is not trained, on top of what was loaded before.

        Raises:
            FileNotFoundError, ConnectionError, InputError: the file cannot be read, or its sizes, classes or number of
                queries do not match the model.
        """
        checkpoint = read_checkpoint(path)
        adaptation = read_adapted(checkpoint, self.model.state_dict(), may_reinitialize=NOT_FROZEN)
        self._log_notes(checkpoint, adaptation)
        self.model.load_state_dict(adaptation.state_dict, strict=False)
        logger.info(
            "MODEL.DETR.FROZEN_WEIGHTS: %d tensors of %s replace those of MODEL.WEIGHTS; everything but the mask head "
            "is frozen", len(adaptation.state_dict), path,
        )  # fmt: skip

    def save(self, name: str, **kwargs: Any) -> None:
        """Write a checkpoint to resume from.

        The best one is written without optimizer and scheduler, which would triple its size, and cannot be resumed.

        Raises:
            OSError: it cannot be written; the one before is intact.
        """
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
        if name == LAST:
            self._keep_previous()
        save_torch(content, path)
        if name != BEST:
            self.tag_last_checkpoint(path.name)
            self.saved_iteration = kwargs.get("iteration", -1)

    def remove_last(self) -> None:
        """Remove model_last.pth and those before it, which a newer checkpoint has made superfluous."""
        if self.save_to_disk:
            for path in Path(self.save_dir).glob(f"{LAST}*.pth"):
                path.unlink(missing_ok=True)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Write the name of the checkpoint to resume from."""
        with atomic_write(Path(self.save_dir) / "last_checkpoint") as temporary:
            temporary.write_text(last_filename_basename)

    def _keep_previous(self) -> None:
        """Rename model_last.pth to model_last_2.pth, and so on; a crash in between loses none of them."""
        names = [LAST, *(f"{LAST}_{number}" for number in range(2, self.num_kept + 1))]
        paths = [Path(self.save_dir) / f"{name}.pth" for name in names]
        for newer, older in reversed(list(pairwise(paths))):
            if newer.is_file():
                os.replace(newer, older)

    def _load_file(self, filename: str) -> dict[str, Any]:
        checkpoint = self._checkpoint or read_checkpoint(filename)
        adaptation = read_adapted(checkpoint, self.model.state_dict(), may_reinitialize=self.may_reinitialize)
        self._log_notes(checkpoint, adaptation)
        for part, reason in adaptation.reinitialized.items():
            logger.warning("%s: %s reinitialized: %s", checkpoint.name, part, reason)
        if checkpoint.metadata.warning:
            logger.warning("%s: %s", checkpoint.name, checkpoint.metadata.warning)
        return checkpoint.extra | {"model": adaptation.state_dict}

    def _log_notes(self, checkpoint: Checkpoint, adaptation: Adaptation) -> None:
        for note in adaptation.notes:
            logger.info("%s: %s", checkpoint.name, note)
        ours, theirs = (m.names if m else () for m in (self.label_map, checkpoint.metadata.label_map))
        if ours and theirs and len(ours) == len(theirs) and ours != theirs:
            logger.warning(
                "%s was trained for the classes %s; here they are used as %s, in this order",
                checkpoint.name, ", ".join(theirs), ", ".join(ours),
            )  # fmt: skip

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        """Log unexpected keys only: `_load_file` has reported the missing ones."""
        super()._log_incompatible_keys(incompatible._replace(missing_keys=[]))


def read_adapted(
    weights: str | Path | Checkpoint, model: StateDict, *, may_reinitialize: Collection[str]
) -> Adaptation:
    """Adapt a checkpoint to a model, reading it first unless it is given as a Checkpoint.

    Args:
        model: the state dict of the model, which is not changed.
        may_reinitialize: see DetrCheckpointer.

    Raises:
        FileNotFoundError, ConnectionError, InputError: the file cannot be read or does not match the model.
    """
    checkpoint = weights if isinstance(weights, Checkpoint) else read_checkpoint(weights)
    with error_context(checkpoint.name):
        adaptation = adapt(checkpoint.state_dict, model, checkpoint.metadata.label_map)
        for part, reason in adaptation.reinitialized.items():
            if part not in may_reinitialize:
                raise InputError(
                    f"{part}: {reason}; nothing trains it here, so use weights that match the model and the data"
                )
    return adaptation


def load_model(cfg: CfgNode, checkpoint: Checkpoint | None = None) -> nn.Module:
    """Build the model of a config and load its weights for inference.

    Args:
        checkpoint: the weights; None reads MODEL.WEIGHTS.

    Returns:
        The model in evaluation mode.

    Raises:
        FileNotFoundError, ConnectionError, InputError: the file cannot be read, or lacks a part of the model.
    """
    model = build_model(cfg)
    DetrCheckpointer(model, may_reinitialize=()).load(checkpoint or cfg.MODEL.WEIGHTS)
    return model.eval()
