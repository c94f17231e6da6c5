"""Reading checkpoint files without running code."""

from __future__ import annotations

import argparse
import json
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from d2_detr.checkpoint import hugging_face
from d2_detr.utils.errors import InputError

# Native DETR stores its command line beside the weights. A Namespace is a plain holder of values.
torch.serialization.add_safe_globals([argparse.Namespace])
# What this project writes as JSON into the header of a safetensors file.
_OURS = {"label_map": dict, "config": str, "threshold": float}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Content of a .pth, .bin or .safetensors file, or of a folder of Hugging Face's: `model`, the state dict, and
    what else was stored. DETR's config.json beside the file is `hugging_face`, its preprocessor_config.json
    `hugging_face_processor`.

    Raises:
        FileNotFoundError: no such file.
        InputError: not a checkpoint, cut short, or one that would run code.
    """
    path = Path(path)
    if path.is_dir():
        path = hugging_face.weights_file(path)
        beside = hugging_face.read_configs(path.parent)
    elif not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    elif path.name in (hugging_face.WEIGHTS, hugging_face.WEIGHTS_OLD) and (path.parent / hugging_face.CONFIG).exists():
        beside = hugging_face.read_configs(path.parent)
    else:
        beside = {}
    checkpoint = _read_file(path)
    if not isinstance(checkpoint, dict):
        raise InputError(f"{path}: holds a {type(checkpoint).__name__}, not a checkpoint")
    if "model" not in checkpoint:
        checkpoint = _of_lightning(checkpoint) if "state_dict" in checkpoint else {"model": checkpoint}
    if not isinstance(checkpoint["model"], dict):
        raise InputError(f"{path}: model is a {type(checkpoint['model']).__name__}, not a state dict")
    if odd := [name for name, value in checkpoint["model"].items() if not isinstance(value, torch.Tensor)]:
        raise InputError(f"{path}: {odd[0]} of the state dict is a {type(checkpoint['model'][odd[0]]).__name__}")
    return checkpoint | beside


def _of_lightning(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """PyTorch Lightning has the weights under `state_dict`, and the model mostly as `self.model` of its module."""
    weights = checkpoint["state_dict"]
    if isinstance(weights, dict):
        weights = {str(name): weight for name, weight in weights.items() if not str(name).startswith("criterion.")}
        if all(name.startswith("model.") for name in weights):
            weights = {name.removeprefix("model."): weight for name, weight in weights.items()}
    return {"model": weights}


def _read_file(path: Path) -> object:
    if path.suffix == ".pkl":
        raise InputError(f"{path}: a pickle can run code and is not read; give the .pth or .safetensors file instead")
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # damaged bytes make the readers stumble in many ways
        # Not torch's own message: it advises to read the file all the same.
        if isinstance(error, pickle.UnpicklingError) and (code := re.search(r"GLOBAL (\S+)", str(error))):
            raise InputError(f"{path}: holds {code[1]}, could run code, and is not read") from error
        reason = str(error) if isinstance(error, RuntimeError) else type(error).__name__
        raise InputError(f"{path}: not a checkpoint, or cut short ({reason}); fetch or save it again") from error


def _read_safetensors(path: Path) -> dict[str, Any]:
    """The tensors, and what this project wrote into the file's own metadata as JSON."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        model = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    beside = {key: _stored(metadata, key, kind) for key, kind in _OURS.items()}
    return {"model": model} | {key: value for key, value in beside.items() if value is not None}


def _stored(metadata: dict[str, str], key: str, kind: type) -> Any:
    """What this project wrote under a key; None where somebody else did."""
    try:
        value = json.loads(metadata.get(key, "null"))
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, kind) else None
