"""Record figures of the real Detectron2 for test_recorded_figures.py.

    python tests/reference/record_detectron2.py

Recorded with Detectron2 0.6 at 02b5c4e, torch 2.14.1, on the CPU.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
import d2_detr  # noqa: F401 - settles which detectron2 answers
from tests.reference import detectron2_figures

import detectron2


def lines(figures: dict[str, Any]) -> str:
    """Format figures as JSON, one per line, so that a diff shows what has changed."""
    groups = []
    for group, values in figures.items():
        rows = (f"{json.dumps(name)}: {json.dumps(value, separators=(',', ':'))}" for name, value in values.items())
        groups.append(f"{json.dumps(group)}: {{\n" + ",\n".join(rows) + "\n}")
    return "{\n" + ",\n".join(groups) + "\n}\n"


if __name__ == "__main__":
    if "embedded" in detectron2.__version__:
        sys.exit(f"{detectron2.__file__} is the embedded detectron2; install the real one to record its figures")
    detectron2_figures.FILE.write_text(lines(detectron2_figures.figures()))
