"""d2_detr: fine-tune DETR, as a Detectron2 plugin.

Importing it settles which `detectron2` answers (so import it first), and registers the meta-architecture `Detr`, the
torchvision backbones and the balloon dataset.
"""

# ruff: noqa: E402 - everything below imports detectron2
from d2_detr._runtime import settle_detectron2

settle_detectron2()

from d2_detr import data, modeling  # noqa: F401 - only registration
from d2_detr.config.keys import add_detr_config
from d2_detr.data.mapper import DetrDatasetMapper
from d2_detr.inference.predictor import Predictor
from d2_detr.modeling.detr import Detr
from d2_detr.workflows.finetune import finetune

__version__ = "0.1.0"
__all__ = ["Detr", "DetrDatasetMapper", "Predictor", "add_detr_config", "finetune"]
