"""A tool as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def start(datasets, tool, *args):
    """With `datasets` as the folder of datasets, and of what is downloaded."""
    environment = os.environ | {
        "DETECTRON2_DATASETS": str(datasets),
        "D2_DETR_CACHE": str(datasets / "cache"),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, str(ROOT / "tools" / tool), *map(str, args)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def run(datasets, tool, *args):
    """Exit status, and all that it wrote."""
    process = start(datasets, tool, *args)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output
