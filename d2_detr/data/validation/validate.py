"""Validation of the data before a training or an evaluation."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from d2_detr.data.validation.checks import check_images, check_masks
from d2_detr.data.validation.statistics import class_table, compute_stats
from d2_detr.data.validation.warnings import box_warnings, file_warnings
from d2_detr.structures.dataset import Dataset
from d2_detr.utils.command_line import command
from d2_detr.utils.errors import InputError

logger = logging.getLogger(__name__)


def validate_data(train: Sequence[Dataset], test: Sequence[Dataset], *, num_queries: int, with_masks: bool) -> None:
    """Check images and masks, and log the class table and annotation warnings.

    Args:
        train: the training sets, of the same classes; empty for an evaluation, which needs images and masks only.
        test: the sets to evaluate on.
        num_queries: number of object queries of the model.
        with_masks: every object needs a mask.

    Raises:
        FileNotFoundError: an image does not exist.
        InputError: see `check_images` and `check_masks`; or the training or the test sets have no objects.
    """
    datasets = list({dataset.name: dataset for dataset in (*train, *test)}.values())
    check_images(datasets)
    if with_masks:
        check_masks(datasets)
    if not train:
        return
    label_map, train_stats, test_stats = train[0].label_map, compute_stats(train), compute_stats(test)
    logger.info("Classes of the data:\n%s", class_table(label_map, train_stats, test_stats))
    if not train_stats.num_boxes:
        raise InputError(
            f"{train_stats.title}: no objects in {train_stats.num_images} images, so there is nothing to learn; "
            "annotate them"
        )
    if test and not test_stats.num_boxes:
        raise InputError(
            f"{test_stats.title}: no objects in {test_stats.num_images} images, so AP cannot be measured; annotate "
            f"them, split the annotated images ({command('split')}), or train without evaluation (DATASETS.TEST '()')"
        )
    for warning in (
        *box_warnings(label_map, train_stats, test_stats, num_queries), *file_warnings(train_stats, test_stats)
    ):  # fmt: skip
        logger.warning(warning)
