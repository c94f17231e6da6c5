"""What Detectron2's evaluators do not measure without further packages: panoptic quality."""

from d2_detr.evaluation.panoptic import PanopticEvaluator

__all__ = ["PanopticEvaluator"]
