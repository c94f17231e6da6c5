"""Save checkpoint files atomically, with the system's error if that fails."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from d2_detr.checkpoint.layouts import StateDict
from d2_detr.utils.files import atomic_write


def save_torch(content: object, path: str | Path) -> None:
    """Write a checkpoint in torch's format.

    Raises:
        OSError: it cannot be written, such as on a full disk; the error names the file.
    """
    # Given a path instead of a file, torch hides the system's error.
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def save_safetensors(state_dict: StateDict, path: str | Path, metadata: Mapping[str, str]) -> None:
    """Write a state dict in the format of safetensors.

    Raises:
        OSError: it cannot be written, such as on a full disk; the error names the file.
    """
    with atomic_write(path) as temporary:
        try:
            save_file(state_dict, temporary, metadata=dict(metadata))
        except SafetensorError as error:
            raise OSError(f"{path}: cannot be written: {error}") from error
