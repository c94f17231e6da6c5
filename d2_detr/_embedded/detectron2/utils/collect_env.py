import importlib.metadata
import os
import sys

import torch
from tabulate import tabulate

import detectron2


def collect_env_info() -> str:
    """The versions and devices that a bug report needs, as a table, and torch's own description of its build."""
    rows = [
        ("sys.platform", sys.platform),
        ("Python", sys.version.replace("\n", "")),
        ("detectron2", f"{detectron2.__version__} @{os.path.dirname(detectron2.__file__)}"),
        ("PyTorch", f"{torch.__version__} @{os.path.dirname(torch.__file__)}"),
        ("PyTorch debug build", torch.version.debug),
        ("CUDA of PyTorch", torch.version.cuda),
        ("GPU available", "Yes" if torch.cuda.is_available() else "No: torch.cuda.is_available() == False"),
        *((f"GPU {index}", torch.cuda.get_device_properties(index)) for index in range(torch.cuda.device_count())),
        *((name, _version(name)) for name in ("numpy", "Pillow", "torchvision", "fvcore", "iopath", "pycocotools")),
    ]
    return f"{tabulate(rows)}\n{torch.__config__.show()}"


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "Not found"
