"""Where the time of a training step goes, by kind of operator."""

from __future__ import annotations

import re
from collections import defaultdict

import torch
from torch.profiler import ProfilerActivity, profile

from d2_detr.engine.benchmark.contestants import Contestant
from d2_detr.engine.benchmark.measure import time_call

OUTSIDE = "outside of operators"  # Python, the matching by scipy, waiting
OTHER = "other operators"
# Kind of operator, and a pattern of its names; the first that matches counts.
KINDS = {
    "convolution": r"conv|cudnn|mkldnn_reorder",
    "attention": r"attention|softmax|flash|fmha",
    "matrix products": r"addmm|bmm|::mm$|linear|gemm|cutlass|einsum|cdist",
    "normalization": r"norm",
    "optimizer and clipping": r"_foreach|_fused_adam|lerp|addcdiv|addcmul|optimizer",
    "dropout": r"dropout|bernoulli",
    "copies and conversions": r"copy|_to_copy|::cat|stack|clone|contiguous|memcpy|memset|fill|zero|pad|index|split",
    "elementwise": r"add|mul|sub|div|relu|threshold|pow|exp|sqrt|sum|clamp|sigmoid|where|elementwise|reduce",
}


def profile_step(contestant: Contestant, device: torch.device) -> dict[str, float]:
    """Return the seconds of a training step by kind of operator, in the order of KINDS.

    The profiler slows the step down a little, most of all small operators.
    """
    contestant.train_step()
    activity = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity]) as profiler:
        elapsed = time_call(contestant.train_step, device)
    attribute = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    seconds: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        seconds[operator_kind(event.key)] += getattr(event, attribute) / 1e6
    seconds[OUTSIDE] = max(0.0, elapsed - sum(seconds.values()))
    return {kind: seconds[kind] for kind in (*KINDS, OTHER, OUTSIDE)}


def operator_kind(name: str) -> str:
    """Return the kind of an operator or kernel by its name."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name, re.IGNORECASE)), OTHER)
