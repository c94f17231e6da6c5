"""Seeding of random generators."""

import logging
import os
import random
from datetime import datetime

import numpy as np
import torch

from detectron2._missing import missing_attribute

__getattr__ = missing_attribute(__name__)


def seed_all_rng(seed: int | None = None) -> None:
    """Seed Python, numpy and torch, by default differently in each process."""
    if seed is None:
        seed = os.getpid() + int(datetime.now().strftime("%S%f")) + int.from_bytes(os.urandom(2), "big")
        logging.getLogger(__name__).info(f"Using the random seed {seed}")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    os.environ["PYTHONHASHSEED"] = str(seed)
