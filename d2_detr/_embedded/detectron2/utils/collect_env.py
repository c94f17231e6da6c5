"""Description of the environment."""

import sys

import fvcore
import numpy as np
import PIL
import torch
import torchvision
from tabulate import tabulate

import detectron2


def collect_env_info() -> str:
    """Return the versions and devices that a bug report needs."""
    modules = (detectron2, torch, torchvision, np, PIL, fvcore)
    rows = [
        ("sys.platform", sys.platform),
        ("Python", sys.version),
        *((module.__name__, module.__version__) for module in modules),
        *((f"GPU {i}", torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count())),
    ]
    return f"{tabulate(rows)}\n{torch.__config__.show()}"
