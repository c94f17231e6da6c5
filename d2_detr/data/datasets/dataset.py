"""A dataset that is read once and then handed on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2_detr.structures.label_map import LabelMap

from detectron2.data import Metadata, MetadataCatalog


@dataclass(frozen=True, eq=False)
class Dataset:
    """The images and annotations of one entry of DATASETS.TRAIN or DATASETS.TEST.

    Attributes:
        name: as the config has it.
        catalog_name: the key in Detectron2's catalogs. It differs from `name` for a custom dataset, whose key also
            holds its folder, so that two of them can be in use at once.
        records: Detectron2's dataset dicts.
        label_map: the classes; of a panoptic dataset things come first, then stuff.
        things: the same images with the things alone, on which AP is measured; the dataset itself if not panoptic.
    """

    name: str
    catalog_name: str
    records: list[dict[str, Any]]
    label_map: LabelMap
    panoptic_things: Dataset | None = None

    @property
    def things(self) -> Dataset:
        """The dataset to measure AP on."""
        return self.panoptic_things or self

    @property
    def metadata(self) -> Metadata:
        """What Detectron2's catalog knows about the dataset."""
        return MetadataCatalog.get(self.catalog_name)

    @property
    def json_file(self) -> Path:
        """The annotations in COCO format that AP is measured against."""
        return Path(self.metadata.json_file)
