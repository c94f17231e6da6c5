"""COCO's panoptic datasets, which the real Detectron2 registers itself."""

from __future__ import annotations

from d2_detr.data.datasets import catalog
from d2_detr.data.datasets.panoptic import PanopticSource
from d2_detr.structures.records import Record

from detectron2.data import DatasetCatalog, MetadataCatalog

DATASETS = {f"coco_2017_{split}_panoptic": split for split in ("train", "val")}


def register(name: str) -> None:
    """Register one of DATASETS; if Detectron2 has it, only say which dataset has its things."""
    if name in DatasetCatalog:
        if not MetadataCatalog.get(name).get("instances"):
            MetadataCatalog.get(name).instances = f"coco_2017_{DATASETS[name]}"
        return
    split, folder = DATASETS[name], catalog.datasets_folder() / "coco"
    source = PanopticSource(
        folder / f"{split}2017",
        folder / "annotations" / f"panoptic_{split}2017.json",
        folder / f"panoptic_{split}2017",
        instances=f"coco_2017_{split}",
    )

    def load() -> list[Record]:
        records, metadata = source.read()
        catalog.set_metadata(name, **metadata)
        return records

    catalog.register(name, load, **source.metadata)
