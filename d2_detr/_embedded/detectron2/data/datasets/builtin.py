"""Register the instances of COCO 2017 in $DETECTRON2_DATASETS or ./datasets."""

import os
from pathlib import Path

import yaml

from .coco import register_coco_instances

_COCO_SPLITS = {  # name: image folder, annotation file
    "coco_2017_train": ("train2017", "instances_train2017"),
    "coco_2017_val": ("val2017", "instances_val2017"),
    "coco_2017_test": ("test2017", "image_info_test2017"),
    "coco_2017_test-dev": ("test2017", "image_info_test-dev2017"),
    "coco_2017_val_100": ("val2017", "instances_val2017_100"),
}


def register_all_coco(root: str) -> None:
    """Register all splits in `root`/coco, whether their files exist or not."""
    categories = yaml.safe_load(Path(__file__).with_name("coco_categories.yaml").read_text())
    metadata = {
        "thing_dataset_id_to_contiguous_id": {category["id"]: i for i, category in enumerate(categories)},
        "thing_classes": [category["name"] for category in categories],
        "thing_colors": [category["color"] for category in categories],
    }
    for name, (images, annotations) in _COCO_SPLITS.items():
        json_file = os.path.join(root, "coco", "annotations", f"{annotations}.json")
        register_coco_instances(name, metadata, json_file, os.path.join(root, "coco", images))


register_all_coco(os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets")))
