from .._missing import missing_attribute
from .coco_evaluation import COCOEvaluator
from .evaluator import DatasetEvaluator, DatasetEvaluators, inference_context, inference_on_dataset
from .testing import print_csv_format, verify_results

__all__ = ["COCOEvaluator", "DatasetEvaluator", "DatasetEvaluators", "inference_context", "inference_on_dataset"]
__all__ += ["print_csv_format", "verify_results"]
__getattr__ = missing_attribute(__name__)
