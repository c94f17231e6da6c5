"""The precision that the network computes in."""

from __future__ import annotations

from pathlib import Path

import torch
from fvcore.common.config import CfgNode

from d2_detr.utils.errors import InputError


def autocast_dtype(cfg: CfgNode) -> torch.dtype | None:
    """bfloat16 or None (float32), as MODEL.DETR.AUTOCAST says: "off", "bf16", or "auto" where it is native."""
    choice = cfg.MODEL.DETR.AUTOCAST
    if choice not in ("off", "bf16", "auto"):
        raise InputError(f'MODEL.DETR.AUTOCAST {choice!r}: expected "off", "bf16" or "auto"')
    if choice != "off" and cfg.SOLVER.AMP.ENABLED:
        raise InputError("MODEL.DETR.AUTOCAST and SOLVER.AMP.ENABLED are both on; leave one of them off")
    if choice == "bf16" or (choice == "auto" and computes_in_bf16(torch.device(cfg.MODEL.DEVICE))):
        return torch.bfloat16
    return None


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 in hardware; where it does not, bf16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool(_cpu_flags() & {"amx_bf16", "avx512_bf16"})
    return False


def _cpu_flags() -> set[str]:
    """What Linux says of the processor; torch's own queries are private and change their names. Elsewhere: nothing."""
    cpuinfo = Path("/proc/cpuinfo")
    return set(cpuinfo.read_text().split()) if cpuinfo.is_file() else set()
