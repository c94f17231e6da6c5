"""Loading and saving checkpoints of Detr."""

from __future__ import annotations

from pathlib import Path

import torch

from d2_detr.checkpoint.convert import Format, detect_format, to_plugin
from d2_detr.checkpoint.read import read_checkpoint
from d2_detr.checkpoint.weights import local_weights
from d2_detr.files import replacing

from detectron2.checkpoint import DetectionCheckpointer


class DetrCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer for native DETR, torchvision and own files; none of them can run code.

    Files are replaced atomically. Parameters of another shape are skipped and named.
    """

    def load(self, path: str, *args, **kwargs) -> dict:
        """Load from a path, an https address, or the name under which Detectron2 knows torchvision's weights."""
        self._parsed_url_during_load = None  # Detectron2 leaves it set when a load fails, and refuses the next one
        if path and not (local := local_weights(path)).is_file():
            raise FileNotFoundError(f"{path}: no such checkpoint")
        return super().load(str(local) if path else path, *args, **kwargs)

    def save(self, name: str, **kwargs: object) -> None:
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: checkpointable.state_dict() for key, checkpointable in self.checkpointables.items()}
        path = Path(self.save_dir) / f"{name}.pth"
        self.logger.info("Saving checkpoint to %s", path)
        with replacing(path) as temporary:
            torch.save({"model": self.model.state_dict(), **states, **kwargs}, temporary)
        self.tag_last_checkpoint(path.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        with replacing(Path(self.save_dir) / "last_checkpoint") as temporary:
            temporary.write_text(last_filename_basename)

    def _load_file(self, filename: str) -> dict:
        checkpoint = read_checkpoint(filename)
        format_ = detect_format(checkpoint["model"])
        if format_ is Format.PLUGIN:
            return checkpoint
        state_dict, report = to_plugin(checkpoint["model"], format_)
        self.logger.info("%s: %s", filename, report)
        return {"model": state_dict}
