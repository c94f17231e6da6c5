"""Registers COCO's instance sets of 2017 under the folder $DETECTRON2_DATASETS, by default ./datasets."""

import os
from pathlib import Path
from typing import Any

import yaml

from .coco import register_coco_instances

_COCO_SETS = {  # name: folder of the images, annotation file
    "coco_2017_train": ("train2017", "instances_train2017"),
    "coco_2017_val": ("val2017", "instances_val2017"),
    "coco_2017_test": ("test2017", "image_info_test2017"),
    "coco_2017_test-dev": ("test2017", "image_info_test-dev2017"),
    "coco_2017_val_100": ("val2017", "instances_val2017_100"),
}


def _coco_metadata() -> dict[str, Any]:
    """Names, RGB colours and contiguous ids 0..79 of COCO's categories, known without its annotation files."""
    categories = yaml.safe_load(Path(__file__).with_name("coco_categories.yaml").read_text())
    return {
        "thing_dataset_id_to_contiguous_id": {category["id"]: i for i, category in enumerate(categories)},
        "thing_classes": [category["name"] for category in categories],
        "thing_colors": [category["color"] for category in categories],
    }


def register_all_coco(root: str) -> None:
    """Register the sets of which the files lie, or may lie one day, in `root`/coco."""
    metadata = _coco_metadata()
    for name, (images, annotations) in _COCO_SETS.items():
        json_file = os.path.join(root, "coco", "annotations", f"{annotations}.json")
        register_coco_instances(name, metadata, json_file, os.path.join(root, "coco", images))


register_all_coco(os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets")))
