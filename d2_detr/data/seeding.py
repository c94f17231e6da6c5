"""Random numbers that depend on what they are used for, not on what was drawn before.

Those of an image's augmentation and those of an iteration are the same with any number of workers, and however often a
training is interrupted.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_generators(*key: int) -> None:
    """Seed Python, numpy and torch, on the CPU and on the current GPU if one is in use.

    Args:
        key: non-negative numbers. Each combination of them gives other random numbers.
    """
    seed = _seed_on_cpu(key)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed Python, numpy and torch on the CPU within the block, and restore their states after it."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    _seed_on_cpu(key)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _seed_on_cpu(key: tuple[int, ...]) -> int:
    words = np.random.SeedSequence(key).generate_state(4)
    seed = int(words[0]) << 31 ^ int(words[1])
    random.seed(seed)
    np.random.seed(words)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed takes much longer where CUDA is not in use
    return seed
