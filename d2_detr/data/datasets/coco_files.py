"""The annotations of a dataset of one's own as files in COCO format, whatever its layout.

Nothing is written into the folder of the dataset: what must be converted goes into the cache.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from d2_detr.data.datasets.layouts import LAYOUTS, VAL, Layout, Split, file_state, via_entries
from d2_detr.data.formats.coco import as_id
from d2_detr.data.formats.via import via_to_coco
from d2_detr.data.images import image_size
from d2_detr.utils.download import cache_folder
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import read_json, write_json

logger = logging.getLogger(__name__)


def coco_files(layout: Layout) -> dict[str, Path]:
    """An annotation file in COCO format for each split that has annotations, by the names of the datasets.

    It is the person's own, or in the cache: converted from VIA, with the same category ids in both splits, or
    Roboflow's without the made-up category that it puts first. The log says what was found, once.

    Raises:
        InputError: files of VIA that cannot be converted, or do not say which attribute of a region is its class.
        FileNotFoundError: a picture that VIA names is missing.
    """
    there = [name for name, split in layout.splits.items() if split.annotations.is_file()]
    return _coco_files(layout, *((name, file_state(layout.splits[name].annotations)) for name in there))


@lru_cache(maxsize=1)
def _coco_files(layout: Layout, *states: tuple[str, tuple[int, int]]) -> dict[str, Path]:
    splits = {name: layout.splits[name] for name, _ in states}
    for line in _account(layout, splits):
        logger.info(line)
    if layout.name == "via":
        return _from_via(layout.root, splits)
    files = {name: split.annotations for name, split in splits.items()}
    return _from_roboflow(files) if layout.name == "roboflow" else files


def _account(layout: Layout, splits: Mapping[str, Split]) -> list[str]:
    """What is used of a folder, and what is not, in lines."""
    used = "; ".join(
        f"{name} is {split.annotations.relative_to(layout.root)} with the pictures in "
        f"{split.pictures.relative_to(layout.root)}/"
        for name, split in splits.items()
    )
    lines = [f"{layout.root} has the layout `{layout.name}`: {used}"]
    if (layout.root / "test").is_dir():
        is_val = layout.splits[VAL].pictures.name == "test"
        lines.append("There is no valid/, so test/ is the validation set" if is_val else "test/ is not used")
    return lines


def in_cache(content: dict[str, Any], stem: str) -> Path:
    """A JSON file of this content in the cache; its name is `stem` and the hash of the content."""
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    path = cache_folder() / "datasets" / f"{stem}-{digest}.json"
    if not path.is_file():
        write_json(content, path)
    return path


# ---- Roboflow


def _from_roboflow(files: dict[str, Path]) -> dict[str, Path]:
    contents = {name: read_json(path) for name, path in files.items()}
    if not all(map(_begins_with_made_up, contents.values())):
        return files
    for name, content in contents.items():
        made_up, *classes = content["categories"]
        contents[name] = content | {"categories": classes}
    logger.info("Roboflow's category %r, above all others and without an object, is left out", made_up["name"])
    return {name: in_cache(content, name) for name, content in contents.items()}


def _begins_with_made_up(content: Any) -> bool:
    """Whether the first category is no class: it has id 0, is above all the others and not annotated."""
    try:
        first, *others = content["categories"]
        above_all = first["supercategory"] == "none" and all(c["supercategory"] == first["name"] for c in others)
        used = any(as_id(annotation["category_id"]) == 0 for annotation in content["annotations"])
        return as_id(first["id"]) == 0 and bool(others) and above_all and not used
    except (TypeError, KeyError, ValueError):
        return False  # not as COCO has it: whoever reads it next says so


# ---- VIA


def _from_via(root: Path, splits: Mapping[str, Split]) -> dict[str, Path]:
    contents = {name: read_json(split.annotations) for name, split in splits.items()}
    converters = {
        name: partial(via_to_coco, content, source=str(splits[name].annotations)) for name, content in contents.items()
    }
    which = _which_class(root, splits, converters, contents)
    # Numbered together: alone, a split has ids for the classes that it holds.
    found = [
        category["name"]
        for name, convert in converters.items() if _attributes(contents[name])
        for category in convert(_any_size, **which)["categories"]
    ]  # fmt: skip
    classes = list(dict.fromkeys(found)) or None
    return {
        name: in_cache(convert(partial(_size, splits[name].pictures), classes=classes, **which), name)
        for name, convert in converters.items()
    }


def _which_class(root: Path, splits: Mapping[str, Split], converters: Mapping, contents: Mapping) -> dict[str, str]:
    """What tells via_to_coco the class of a region: the attribute that all have, or the name of the folder for all."""
    one_class = {"class_name": Path(os.path.abspath(root)).name}
    for convert in converters.values():
        convert(_any_size, **one_class)  # sees that entries and regions are in order
    given = [attributes for content in contents.values() for attributes in _attributes(content)]
    if not any(given):
        logger.info("All regions are of the class %r: they have no attributes", one_class["class_name"])
        return one_class
    # Where an attribute is missing in some regions only, via_to_coco names the first.
    attribute, *others = sorted(set.intersection(*given) or set.union(*given))
    if not others:
        logger.info("The class of a region is its attribute %r", attribute)
        return {"class_attribute": attribute}
    name, split = next(iter(splits.items()))
    output = root / LAYOUTS["coco"][name].annotations[1]  # which goes with train/ and val/
    raise InputError(
        f"{split.annotations}: the regions have the attributes {', '.join(map(repr, [attribute, *others]))}; say which "
        f"is the class: python tools/via_to_coco.py {split.annotations} --output {output} --class-attribute NAME "
        "--classes A,B,C (or --class-name NAME for a single class), and in the same way for the other split"
    )


def _any_size(_: str) -> tuple[float, float]:
    return math.inf, math.inf


def _size(folder: Path, file_name: str) -> tuple[int, int]:
    return image_size(folder / file_name)


def _attributes(content: Mapping) -> list[set[str]]:
    """Of each region the attributes that have a value."""
    found = []
    for entry in via_entries(content):
        regions = entry.get("regions", [])
        for region in regions.values() if isinstance(regions, Mapping) else regions:
            found.append({name for name, value in region.get("region_attributes", {}).items() if value})
    return found
