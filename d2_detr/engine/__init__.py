"""Training and evaluation."""

from d2_detr.engine.launch import launch
from d2_detr.engine.run import evaluate, train
from d2_detr.engine.setup import load_config, setup
from d2_detr.engine.trainer import Trainer

__all__ = ["Trainer", "evaluate", "launch", "load_config", "setup", "train"]
