"""Results of the `detectron2` in use for fixed inputs, as JSON values.

Each function in GROUPS covers one part and uses only names that the embedded subset offers. Its figures are recorded
with the real Detectron2 (record_detectron2.py) and compared with both (tests/embedded/test_recorded_figures.py). Some
contain names of the plugin; record them again when these change on purpose.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.reference.detectron2_figures import (
    config,
    data,
    evaluation,
    reading,
    solver,
    structures,
    training,
    transforms,
)
from tests.reference.detectron2_figures.common import loggers_as_found, plain

FILE = Path(__file__).parents[1] / "detectron2.json"
_MODULES = (config, transforms, data, reading, structures, solver, evaluation, training)
GROUPS: dict[str, Callable[[], dict]] = {group.__name__: group for module in _MODULES for group in module.GROUPS}
TOLERANCES = {"numbers_of_a_training": 1e-5}  # relative; 1e-6 for the others


def compute(group: str) -> Any:
    """Compute the figures of a group; restore random generators and loggers."""
    numpy_state = np.random.get_state()
    silence = contextlib.redirect_stdout(io.StringIO())
    with loggers_as_found(), silence, torch.random.fork_rng(devices=[]):
        try:
            return plain(GROUPS[group]())
        finally:
            np.random.set_state(numpy_state)


def figures() -> dict[str, Any]:
    """Compute the figures of all groups."""
    return {group: compute(group) for group in GROUPS}


def differences(recorded: Any, computed: Any, rel: float = 1e-6, where: str = "") -> list[str]:
    """Return one line for each leaf that is missing or has another type or value.

    Floats may differ by the relative tolerance `rel` and, near 0, by the absolute tolerance `rel / 100`.
    """
    if isinstance(recorded, dict) and isinstance(computed, dict):
        lines = [f"{where}/{key}: only recorded" for key in sorted(recorded.keys() - computed.keys())]
        lines += [f"{where}/{key}: not recorded" for key in sorted(computed.keys() - recorded.keys())]
        pairs = {key: (recorded[key], computed[key]) for key in recorded if key in computed}
    elif isinstance(recorded, list) and isinstance(computed, list) and len(recorded) == len(computed):
        lines, pairs = [], dict(enumerate(zip(recorded, computed, strict=True)))
    else:
        same = type(recorded) is type(computed) and (
            math.isclose(recorded, computed, rel_tol=rel, abs_tol=rel / 100)
            if isinstance(recorded, float)
            else recorded == computed
        )
        return [] if same else [f"{where}: recorded {recorded!r:.200}, computed {computed!r:.200}"]
    return lines + [line for key, pair in pairs.items() for line in differences(*pair, rel, f"{where}/{key}")]
