from .coco_evaluation import COCOEvaluator
from .evaluator import DatasetEvaluator, inference_context, inference_on_dataset
from .testing import print_csv_format, verify_results

__all__ = [
    "COCOEvaluator",
    "DatasetEvaluator",
    "inference_context",
    "inference_on_dataset",
    "print_csv_format",
    "verify_results",
]
