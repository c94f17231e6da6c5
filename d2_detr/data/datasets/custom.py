"""A custom dataset: custom_train, custom_val and custom_test in a folder with one of the layouts of layouts.py.

The classes are those of the training annotations, in the order of their ids. `custom_*_panoptic` are the same images
with the panoptic annotations X_panoptic.json and X_panoptic/ that make-panoptic writes beside X.json. For a converted
dataset, X.json is the file in the cache.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from d2_detr.config.keys import CUSTOM_TEST, CUSTOM_TRAIN, CUSTOM_VAL, PANOPTIC_SUFFIX
from d2_detr.data.datasets import catalog
from d2_detr.data.datasets.conversion import CocoSource, coco_sources, write_to_cache
from d2_detr.data.datasets.layouts import Layout, find_layout
from d2_detr.data.datasets.panoptic import PanopticSource
from d2_detr.data.datasets.split_cache import CheckedSplit, SplitKey, is_large, recall, remember
from d2_detr.data.formats.coco import CocoFile, parse_coco
from d2_detr.data.formats.coco_pieces import read_without_annotations
from d2_detr.data.formats.coco_records import encode_coco
from d2_detr.data.formats.coco_sections import parse_categories, parse_sections
from d2_detr.structures.label_map import LabelMap
from d2_detr.structures.records import Record, Records, encode_record
from d2_detr.utils.command_line import command
from d2_detr.utils.errors import InputError

logger = logging.getLogger(__name__)


class CustomFolder:
    """The folder of a custom dataset; the object reads each of its files once."""

    def __init__(self, root: str | Path, *, strict: bool = False):
        """Nothing is read yet.

        Args:
            root: the folder.
            strict: annotations that cannot be trained on are an error; else they are dropped.
        """
        self.root = Path(root).expanduser().absolute()
        self.strict = strict

    def register(self, name: str, catalog_name: str = "", *, evaluated: bool = True) -> tuple[str, Sequence[Record]]:
        """Read a split and register it in Detectron2's catalogs.

        Args:
            name: custom_train, custom_val, custom_test, or one of these with the suffix _panoptic.
            catalog_name: key of the catalogs; by default one that contains the folder, so that registering another
                folder does not redirect those who use this one.
            evaluated: write the annotation file against which AP is measured.

        Returns:
            The key, and the images in Detectron2's dataset format.

        Raises:
            FileNotFoundError, InputError: the split is missing, or something in it is wrong.
        """
        catalog_name = catalog_name or f"{name}@{self.root}"
        records, metadata = self._read(name, evaluated=evaluated)

        def load_again() -> Sequence[Record]:
            records, metadata = CustomFolder(self.root, strict=self.strict)._read(name, evaluated=True)
            catalog.set_metadata(catalog_name, **metadata)
            return records

        catalog.register(catalog_name, load_again, **metadata)
        return catalog_name, records

    @cached_property
    def layout(self) -> Layout:
        """The layout of the folder."""
        return find_layout(self.root)

    @cached_property
    def _sources(self) -> dict[str, CocoSource]:
        return coco_sources(self.layout)

    def _read(self, name: str, *, evaluated: bool) -> tuple[Sequence[Record], dict[str, Any]]:
        if name.endswith(PANOPTIC_SUFFIX):
            return self._panoptic_source(name.removesuffix(PANOPTIC_SUFFIX)).read()
        split, checked = self.layout.splits[name], self._read_split(name, evaluated=evaluated)
        label_map = LabelMap(tuple(checked.classes), tuple(checked.classes.values()))
        if not split.images.is_dir() and not Path(checked.records[0]["file_name"]).is_file():
            folders = " or ".join(map(str, split.folders))
            raise FileNotFoundError(f"{split.annotations}: the folder of its images is missing; expected {folders}")
        metadata: dict[str, Any] = {
            "evaluator_type": "coco",
            "image_root": str(split.images),
            "thing_classes": list(label_map.names),
            "thing_dataset_id_to_contiguous_id": label_map.contiguous_ids,
        }
        if checked.json_file:
            metadata["json_file"] = checked.json_file
        return checked.records, metadata

    def _read_split(self, name: str, *, evaluated: bool) -> CheckedSplit:
        """Read the instances of a split; those of a large annotation file from the cache, if they are there."""
        images, source = self.layout.splits[name].images, self._source(name)
        # A model can be evaluated where there is no training data.
        train = self._sources.get(CUSTOM_TRAIN, source)
        classes = None if train is source else self._train_classes
        key = None if source.converted else SplitKey.of(name, source.path, images, classes)
        if key and (known := recall(key)) and self._is_usable(known, evaluated=evaluated):
            if known.warning:
                logger.warning(known.warning)
            return known
        # Of what is evaluated, the annotations themselves are needed.
        if key and classes is None and not evaluated and (large := self._read_large(key)):
            return large
        coco = parse_coco(source.content, images, source=source.origin, strict=self.strict, root=self.root)
        if classes is None:
            classes = coco.categories
        _check_categories(coco, classes, train)
        contiguous_ids = {category_id: i for i, category_id in enumerate(classes)}
        records = coco.dataset_dicts(images, contiguous_ids, self.root)
        # pycocotools needs a file, and one without the irregularities that are accepted here.
        json_file = str(write_to_cache(coco.as_json(classes), name)) if evaluated else ""
        if not key:
            return CheckedSplit(records, classes, coco.warning, json_file)
        checked = remember(key, map(encode_record, records), classes, coco.warning, json_file)
        return checked or CheckedSplit(Records.pack(records), classes, coco.warning, json_file)

    def _read_large(self, key: SplitKey) -> CheckedSplit | None:
        """Read a large annotation file in pieces and put it into the cache; None if it has errors or is unusual."""
        encoded = encode_coco(key.annotations, key.images, self.root)
        if not encoded or (encoded.warning and self.strict):
            return None
        if encoded.warning:
            logger.warning(encoded.warning)
        checked = remember(key, encoded.records(), encoded.categories, encoded.warning)
        return checked or CheckedSplit(Records.join(encoded.records()), encoded.categories, encoded.warning)

    def _is_usable(self, known: CheckedSplit, *, evaluated: bool) -> bool:
        """Return whether what is remembered is all that is needed, and free of errors."""
        return not (self.strict and known.warning) and (not evaluated or Path(known.json_file).is_file())

    @cached_property
    def _train_classes(self) -> dict[int, str]:
        """Category names by id of the training set."""
        source = self._sources[CUSTOM_TRAIN]
        if "content" not in vars(source) and not source.converted and is_large(source.path):
            content = read_without_annotations(source.path)
        else:
            content = source.content
        return parse_categories(source.origin, parse_sections(source.origin, content)["categories"])

    def _source(self, name: str) -> CocoSource:
        if name not in self._sources:
            raise FileNotFoundError(
                f"{self.layout.splits[name].annotations}: no such file; {self.root} has the layout "
                f"`{self.layout.name}` without this split. {command('split')} makes splits of one annotation file"
            )
        return self._sources[name]

    def _panoptic_source(self, name: str) -> PanopticSource:
        files = {split: part.annotations for split, part in self.layout.splits.items()}
        files |= {split: source.path for split, source in self._sources.items()}
        return PanopticSource.beside(
            files[name],
            image_root=self.layout.splits[name].images,
            instances=name,
            train_file=files[CUSTOM_TRAIN],
            root=self.root,
        )


def register_custom(root: str | Path, *, strict: bool = False) -> None:
    """Register the splits of a folder under their plain names, for scripts that use Detectron2's catalogs.

    Raises:
        FileNotFoundError, InputError: there is no dataset, or something in it is wrong.
    """
    folder = CustomFolder(root, strict=strict)
    for name in (CUSTOM_TRAIN, CUSTOM_VAL, CUSTOM_TEST):
        if folder.layout.splits[name].annotations.is_file():
            folder.register(name, name)


def _check_categories(coco: CocoFile, expected: Mapping[int, str], train: CocoSource) -> None:
    for category_id, category in coco.categories.items():
        other = expected.get(category_id)
        if other != category:
            there = f"{other!r} in {train.origin}" if other else f"missing in {train.origin}"
            raise InputError(
                f"{coco.path}: category {category_id} is {category!r}, but {there}; both files need the same categories"
            )
