"""A dataset that is read once and then handed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.utils.data import ConcatDataset

from d2_detr.structures.label_map import LabelMap
from d2_detr.structures.records import Record, Records

from detectron2.data import Metadata


@dataclass(frozen=True, eq=False)
class Dataset:
    """The images and annotations of one entry of DATASETS.TRAIN or DATASETS.TEST.

    Attributes:
        name: the entry in the config.
        catalog_name: the key in Detectron2's catalogs. That of a custom dataset also contains its folder, so that two
            of them can be in use at the same time.
        records: the images, in Detectron2's dataset format.
        label_map: the classes; of a panoptic dataset, things come first, then stuff.
        metadata: its entry in Detectron2's MetadataCatalog.
        panoptic_things: for a panoptic dataset, the same images with the things alone.
    """

    name: str
    catalog_name: str
    records: Sequence[Record] = field(repr=False)
    label_map: LabelMap
    metadata: Metadata = field(repr=False)
    panoptic_things: Dataset | None = None

    @property
    def things(self) -> Dataset:
        """The dataset on which AP is measured."""
        return self.panoptic_things or self

    @property
    def json_file(self) -> Path:
        """The annotations in COCO format against which AP is measured."""
        return Path(self.things.metadata.json_file)

    @property
    def stuff_classes(self) -> tuple[int, ...]:
        """Contiguous ids of the stuff classes; () if not panoptic."""
        return tuple(sorted(self.metadata.get("stuff_dataset_id_to_contiguous_id", {}).values()))


@dataclass(frozen=True)
class Datasets:
    """All datasets of a run: those of DATASETS.TRAIN (none in an evaluation) and of DATASETS.TEST."""

    train: Sequence[Dataset]
    test: Sequence[Dataset]

    @property
    def num_train_images(self) -> int:
        """The number of images in an epoch."""
        return sum(len(dataset.records) for dataset in self.train)

    @property
    def train_records(self) -> Any:
        """The images of an epoch, as Detectron2's build_detection_train_loader takes them.

        Detectron2 makes a compact copy of a list; what is compact already is handed on as it is.
        """
        every: list[Any] = [dataset.records for dataset in self.train]
        if len(every) == 1:
            return every[0]
        if any(isinstance(records, Records) for records in every):
            return ConcatDataset(every)
        return [record for records in every for record in records]
