import logging
import os
import random
from datetime import datetime

import numpy as np
import torch


def seed_all_rng(seed: int | None = None) -> None:
    """Seed Python, numpy and torch (CUDA too); without a seed, draw one from the process, the clock and the system."""
    if seed is None:
        seed = os.getpid() + int(datetime.now().strftime("%S%f")) + int.from_bytes(os.urandom(2), "big")
        logging.getLogger(__name__).info(f"No seed was given; drew {seed}")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    os.environ["PYTHONHASHSEED"] = str(seed)
