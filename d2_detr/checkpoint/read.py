"""Read checkpoint files without running code from them."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from d2_detr.checkpoint import hugging_face
from d2_detr.checkpoint.file_checks import FileType, check_file, check_state_dict, damaged
from d2_detr.checkpoint.layouts import StateDict
from d2_detr.checkpoint.metadata import Metadata, checkpoint_metadata
from d2_detr.checkpoint.weights import local_weights
from d2_detr.utils.errors import InputError, error_context

# Native DETR stores its arguments beside the weights. A Namespace only holds values.
torch.serialization.add_safe_globals([argparse.Namespace])
# Values that this project stores as JSON in the header of a safetensors file.
_HEADER_TYPES = {"label_map": dict, "config": str, "threshold": float}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, read once.

    Args:
        name: as it was asked for: a path, an address or a published name.
        path: the local file with the weights.
        state_dict: the model, under the names of the file.
        metadata: what the checkpoint says about the model.
        extra: everything else in the file: optimizer, scheduler, iteration, ...
    """

    name: str
    path: Path
    state_dict: StateDict
    metadata: Metadata
    extra: dict[str, Any]


def read_checkpoint(weights: str | Path) -> Checkpoint:
    """Read a checkpoint of any layout, downloading it first if necessary.

    Args:
        weights: any value of MODEL.WEIGHTS (see `local_weights`); a .pth, .bin, .ckpt or .safetensors file, or a folder
            of Hugging Face transformers.

    Raises:
        FileNotFoundError: no such file.
        ConnectionError: the file cannot be downloaded.
        InputError: not a checkpoint, truncated, or a file that could run code.
    """
    path = local_weights(str(weights))
    if path.is_dir():
        path = hugging_face.weights_file(path)
    if not path.is_file():
        raise FileNotFoundError(f"{weights}: no such checkpoint")
    is_hugging_face = path.name in (hugging_face.WEIGHTS, hugging_face.WEIGHTS_OLD)
    configs = hugging_face.read_configs(path.parent) if is_hugging_face else {}
    with error_context(path):
        content = _read_file(path)
        if not isinstance(content, dict):
            raise InputError(f"holds a {type(content).__name__}, not a checkpoint")
        if "model" in content:
            weights_in_file, extra = content["model"], {key: value for key, value in content.items() if key != "model"}
        else:
            weights_in_file = _lightning_weights(content["state_dict"]) if "state_dict" in content else content
            extra = {}
        state_dict = check_state_dict(weights_in_file)
    with error_context(weights):
        return Checkpoint(str(weights), path, state_dict, checkpoint_metadata(extra | configs), extra)


def _lightning_weights(weights: object) -> object:
    """Return the weights that PyTorch Lightning has under `state_dict`, usually those of the attribute `self.model`."""
    if isinstance(weights, dict):
        weights = {str(name): weight for name, weight in weights.items() if not str(name).startswith("criterion.")}
        if all(name.startswith("model.") for name in weights):
            weights = {name.removeprefix("model."): weight for name, weight in weights.items()}
    return weights


def _read_file(path: Path) -> object:
    if path.suffix == ".pkl":
        raise InputError("a pickle can run code and is not read; give the .pth or .safetensors file instead")
    file_type = check_file(path)
    try:
        if file_type is FileType.SAFETENSORS:
            return _read_safetensors(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # damaged bytes raise many kinds of errors in the readers
        # torch's message about a name in the pickle is not repeated: it recommends loading the file unprotected.
        raise damaged(error if isinstance(error, RuntimeError) else type(error).__name__) from error


def _read_safetensors(path: Path) -> dict[str, Any]:
    """Read the tensors, and the values that this project stores in the header."""
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        model = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    values = {key: _header_value(header, key, kind) for key, kind in _HEADER_TYPES.items()}
    return {"model": model} | {key: value for key, value in values.items() if value is not None}


def _header_value(header: dict[str, str], key: str, kind: type) -> Any:
    """Parse a value of the header; None if another program wrote it."""
    try:
        value = json.loads(header.get(key, "null"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, kind) else None
