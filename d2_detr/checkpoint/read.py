"""Reading checkpoint files without running code."""

from __future__ import annotations

import argparse
import pickle
import re
from pathlib import Path

import torch
from safetensors.torch import load_file

from d2_detr.errors import InputError

# Native DETR stores its command line beside the weights. A Namespace is a plain holder of values.
torch.serialization.add_safe_globals([argparse.Namespace])


def read_checkpoint(path: str | Path) -> dict:
    """Content of a .pth or .safetensors file: `model`, the state dict, and what else was stored.

    Raises:
        FileNotFoundError: no such file.
        InputError: not a checkpoint, cut short, or one that would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    if path.suffix == ".pkl":
        raise InputError(f"{path}: a pickle can run code and is not read; give the .pth or .safetensors file instead")
    try:
        if path.suffix == ".safetensors":
            checkpoint = load_file(path)
        else:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # damaged bytes make the readers stumble in many ways
        # Not torch's own message: it advises to read the file all the same.
        if isinstance(error, pickle.UnpicklingError) and (code := re.search(r"GLOBAL (\S+)", str(error))):
            raise InputError(f"{path}: holds {code[1]}, could run code, and is not read") from error
        reason = str(error) if isinstance(error, RuntimeError) else type(error).__name__
        raise InputError(f"{path}: not a checkpoint, or cut short ({reason}); fetch or save it again") from error
    if not isinstance(checkpoint, dict):
        raise InputError(f"{path}: holds a {type(checkpoint).__name__}, not a checkpoint")
    checkpoint = checkpoint if "model" in checkpoint else {"model": checkpoint}
    if not isinstance(checkpoint["model"], dict):
        raise InputError(f"{path}: model is a {type(checkpoint['model']).__name__}, not a state dict")
    return checkpoint
