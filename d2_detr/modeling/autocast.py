"""Precision of the network: float32, or bfloat16 where the hardware supports it."""

from __future__ import annotations

from pathlib import Path

import torch

from d2_detr.utils.errors import InputError

from detectron2.config import CfgNode


def autocast_dtype(cfg: CfgNode) -> torch.dtype | None:
    """Return bfloat16, or None for float32, according to MODEL.DETR.AUTOCAST.

    Raises:
        InputError: the value is unknown, or SOLVER.AMP is enabled as well.
    """
    choice = cfg.MODEL.DETR.AUTOCAST
    if choice not in ("off", "bf16", "auto"):
        raise InputError(f'MODEL.DETR.AUTOCAST {choice!r}: expected "off", "bf16" or "auto"')
    if choice != "off" and cfg.SOLVER.AMP.ENABLED:
        raise InputError("MODEL.DETR.AUTOCAST and SOLVER.AMP.ENABLED are both on; turn one of them off")
    if choice == "bf16" or (choice == "auto" and has_native_bf16(torch.device(cfg.MODEL.DEVICE))):
        return torch.bfloat16
    return None


def has_native_bf16(device: torch.device) -> bool:
    """Tell whether a device computes in bfloat16; emulating it is slow."""
    if device.type == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool(_cpu_flags() & {"amx_bf16", "avx512_bf16"})
    return False


def _cpu_flags() -> set[str]:
    cpuinfo = Path("/proc/cpuinfo")  # on Linux; torch's own queries are private and get renamed
    return set(cpuinfo.read_text().split()) if cpuinfo.is_file() else set()
