"""The annotations of a custom dataset in COCO format, whatever its layout.

Nothing is written into the folder of the dataset: what must be converted goes into the cache.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from d2_detr.config.keys import CUSTOM_TEST, CUSTOM_VAL
from d2_detr.data.datasets.layouts import LAYOUTS, Layout, Split
from d2_detr.data.formats.roboflow import without_roboflow_root
from d2_detr.data.formats.via import Region, classes_in_file, parse_via, via_to_coco
from d2_detr.utils.command_line import command
from d2_detr.utils.download import cache_folder
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import atomic_write, read_json

logger = logging.getLogger(__name__)


@dataclass
class CocoSource:
    """A split's annotations in COCO format.

    Attributes:
        path: the user's own file, or the converted one in the cache.
        origin: the user's own file, for messages.
        converted: the content of a converted file.
    """

    path: Path
    origin: Path
    converted: dict[str, Any] | None = None

    @cached_property
    def content(self) -> Any:
        """The content of the file, not validated, read once."""
        return self.converted or read_json(self.path)


def coco_sources(layout: Layout) -> dict[str, CocoSource]:
    """Return the annotations of every split that has some, by dataset name; the log says what was found.

    VIA annotations are converted, with the same category ids in all splits. The root category that Roboflow adds is
    removed.

    Raises:
        FileNotFoundError: an image named in VIA annotations is missing.
        InputError: VIA annotations that are wrong, or in which no attribute is clearly the class.
    """
    splits = {name: split for name, split in layout.splits.items() if split.annotations.is_file()}
    for line in _summary(layout, splits):
        logger.info(line)
    if layout.name == "via":
        return _from_via(layout.root, splits)
    sources = {name: CocoSource(split.annotations, split.annotations) for name, split in splits.items()}
    return _from_roboflow(sources) if layout.name == "roboflow" else sources


def write_to_cache(content: dict[str, Any], stem: str) -> Path:
    """Write a JSON file to the cache, unless it is there, and return its path: `stem` and a hash of the content."""
    text = json.dumps(content).encode()
    path = cache_folder() / "datasets" / f"{stem}-{hashlib.sha256(text).hexdigest()[:16]}.json"
    if not path.is_file():
        with atomic_write(path) as temporary:
            temporary.write_bytes(text)
    return path


def _summary(layout: Layout, splits: Mapping[str, Split]) -> list[str]:
    """Describe which files are used, in lines."""
    val_is_test = layout.splits[CUSTOM_VAL].annotations == layout.splits[CUSTOM_TEST].annotations
    used = "; ".join(
        f"{name} is {split.annotations.relative_to(layout.root)} with the images in "
        f"{split.images.relative_to(layout.root)}/"
        for name, split in splits.items()
        if not (name == CUSTOM_TEST and val_is_test)
    )
    lines = [f"{layout.root} has the layout `{layout.name}`: {used}"]
    if val_is_test and CUSTOM_VAL in splits:
        lines.append("There is no valid/, so test/ is the validation set")
    return lines


def _from_roboflow(sources: Mapping[str, CocoSource]) -> dict[str, CocoSource]:
    cleaned = {name: without_roboflow_root(source.content) for name, source in sources.items()}
    if any(content is sources[name].content for name, content in cleaned.items()):
        return dict(sources)  # in one of the splits it is a class
    return {name: _converted(name, content, sources[name].origin) for name, content in cleaned.items()}


def _converted(name: str, content: dict[str, Any], origin: Path) -> CocoSource:
    return CocoSource(write_to_cache(content, name), origin, content)


def _from_via(root: Path, splits: Mapping[str, Split]) -> dict[str, CocoSource]:
    files = {name: parse_via(read_json(split.annotations), split.annotations) for name, split in splits.items()}
    class_option = _class_option(root, splits, [region for via in files.values() for region in via.regions])
    # Splits are numbered together: on its own, each would have ids for just the classes that it contains.
    found = [classes_in_file(via, **class_option) for via in files.values() if via.regions]
    classes = list(dict.fromkeys(name for names in found for name in names)) or None
    return {
        name: _converted(
            name, via_to_coco(via, splits[name].images, classes=classes, **class_option), splits[name].annotations
        )
        for name, via in files.items()
    }


def _class_option(root: Path, splits: Mapping[str, Split], regions: Sequence[Region]) -> dict[str, str]:
    """Return the argument that tells via_to_coco the class of a region.

    That is the only attribute that all regions have, or the name of the folder where regions have no attributes.
    """
    given = [{name for name, value in region.attributes.items() if value} for region in regions]
    if not any(given):
        class_name = Path(os.path.abspath(root)).name
        logger.info("Regions have no attributes: all are of the class %r", class_name)
        return {"class_name": class_name}
    # If an attribute is missing in some regions, via_to_coco names the first of them.
    attribute, *others = sorted(set.intersection(*given) or set.union(*given))
    if not others:
        logger.info("The class of a region is its attribute %r", attribute)
        return {"class_attribute": attribute}
    name, split = next(iter(splits.items()))
    output = root / LAYOUTS["coco"][name].annotations[1]  # which is used together with train/ and val/
    convert = command("via-to-coco", split.annotations, "--output", output)
    raise InputError(
        f"{split.annotations}: regions have the attributes {', '.join(map(repr, [attribute, *others]))}; choose the "
        f"one that is the class: {convert} --class-attribute NAME --classes A,B,C (or --class-name NAME for a single "
        "class), and in the same way for the other split"
    )
