"""The checkpoints in the folder of a training from which it can be resumed."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from d2_detr.checkpoint.read import Checkpoint, read_checkpoint
from d2_detr.utils.errors import InputError

logger = logging.getLogger(__name__)

TAG = "last_checkpoint"  # Detectron2's file with the name of the newest one
_NAMES = re.compile(r"model_(final|last(_\d+)?|\d{7,})\.pth")


def has_checkpoint(output_dir: str | Path) -> bool:
    """Return whether a training has left a checkpoint in a folder, from which it can be resumed."""
    return bool(_candidates(Path(output_dir)))


def newest_checkpoint(output_dir: str | Path) -> Checkpoint | None:
    """Read the newest checkpoint that is whole; None if there is none at all.

    Raises:
        InputError: none of them is whole.
    """
    damaged = []
    for path in _candidates(Path(output_dir)):
        try:
            checkpoint = read_checkpoint(path)
            if "trainer" not in checkpoint.extra:
                raise InputError(f"{path}: has no state of a training, so it cannot be resumed from")
        except (InputError, OSError) as error:
            damaged.append(str(error))
            continue
        for problem in damaged:
            logger.warning("%s. Continuing from the older %s", problem.rstrip("."), path.name)
        return checkpoint
    if damaged:
        raise InputError(
            f"no checkpoint in {output_dir} can be continued from: {'; '.join(damaged)}. To start again, give another "
            "--output"
        )
    return None


def _candidates(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder: the one that Detectron2's file names, then the others, newest first."""
    paths = [path for path in folder.glob("model_*.pth") if _NAMES.fullmatch(path.name) and path.is_file()]
    paths.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    tag = folder / TAG
    named = folder / tag.read_text(errors="replace").strip() if tag.is_file() else folder
    if named.parent == folder and named.suffix == ".pth" and named.is_file():
        paths = [named, *(path for path in paths if path != named)]
    return paths
