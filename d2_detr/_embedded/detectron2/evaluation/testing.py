"""Print, verify and flatten evaluation results: {task: {metric: value}}."""

import logging
import math
import sys
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode

logger = logging.getLogger(__name__)


def print_csv_format(results: Mapping[str, Mapping[str, float] | Any]) -> None:
    """Log the metrics, without those of single categories, for a spreadsheet."""
    for task, metrics in results.items():
        if not isinstance(metrics, Mapping):
            logger.info(f"copypaste: {task}={metrics}")
            continue
        overall = {name: value for name, value in metrics.items() if "-" not in name}
        logger.info(f"copypaste: Task: {task}")
        logger.info(f"copypaste: {','.join(overall)}")
        logger.info(f"copypaste: {','.join(f'{value:.4f}' for value in overall.values())}")


def verify_results(cfg: CfgNode, results: Mapping[str, Mapping[str, float]]) -> bool:
    """Exit with status 1 if the results differ from TEST.EXPECTED_RESULTS."""
    expected_results = cfg.TEST.EXPECTED_RESULTS
    for task, metric, expected, tolerance in expected_results:
        actual = results[task].get(metric, math.nan)
        if not abs(actual - expected) <= tolerance:  # NaN fails, too
            logger.error(f"{task} {metric}: expected {expected} +- {tolerance}, got {actual}. All results: {results}")
            sys.exit(1)
    if expected_results:
        logger.info("The results are as expected")
    return True


def flatten_results_dict(results: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten {"bbox": {"AP": 42.0}} to {"bbox/AP": 42.0}, at any depth."""
    flat: dict[str, Any] = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}/{inner}": leaf for inner, leaf in flatten_results_dict(value).items()}
        else:
            flat[key] = value
    return flat
