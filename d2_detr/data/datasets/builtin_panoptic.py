"""COCO's panoptic datasets, and those made from the balloons. Importing this registers them."""

from __future__ import annotations

from d2_detr.data.datasets import balloon
from d2_detr.data.datasets.panoptic import register_made_panoptic, register_panoptic

from detectron2.data import DatasetCatalog, MetadataCatalog


def _register_coco() -> None:
    """Where Detectron2 has them itself, they only learn which dataset has their things alone."""
    folder = balloon.datasets_folder() / "coco"
    for split in ("train", "val"):
        name, instances = f"coco_2017_{split}_panoptic", f"coco_2017_{split}"
        if name not in DatasetCatalog:
            register_panoptic(
                name,
                image_root=folder / f"{split}2017",
                panoptic_json=folder / "annotations" / f"panoptic_{split}2017.json",
                panoptic_root=folder / f"panoptic_{split}2017",
                instances=instances,
            )
        elif not hasattr(MetadataCatalog.get(name), "instances"):
            MetadataCatalog.get(name).instances = instances


def _register_balloons() -> None:
    for name in balloon.NAMES:
        folder = balloon.datasets_folder() / name
        for split in balloon.SPLITS:
            register_made_panoptic(
                f"{name}_{split}",
                image_root=folder / split,
                annotation_file=balloon.annotation_file(folder, split),
                train_file=balloon.annotation_file(folder, "train"),
            )


_register_coco()
_register_balloons()
