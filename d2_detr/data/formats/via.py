"""Annotations of the VGG Image Annotator (VIA) as COCO."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from d2_detr.data.formats.via_shapes import Outline, field, outline
from d2_detr.utils.errors import InputError

REMOTE = re.compile(r"[a-z]+://|www\.[^/]+/", re.IGNORECASE)
VIA_3 = {"project", "metadata", "file"}  # keys of its project files


class Region(NamedTuple):
    file_name: str
    where: str  # file, picture and region, for messages
    shape: Mapping
    attributes: Mapping


def via_to_coco(
    via: Mapping,
    image_size: Callable[[str], tuple[int, int]],
    *,
    source: str,
    class_name: str | None = None,
    class_attribute: str | None = None,
    classes: Sequence[str] | None = None,
) -> dict:
    """Convert VIA annotations; the class of a region is `class_name`, or the value of its `class_attribute`.

    Classes have the ids 1, 2, ... in the order of `classes`, else in that of the options that a project file declares
    for the attribute (the id of an option is the name of the class), else in alphabetical order of the values found.
    In the last case the ids depend on what is found: give all splits of a dataset the same `classes`. Every class
    becomes a category, also one without a region.

    Args:
        via: the annotations as VIA 1.x or 2.x exports them, or a project file of VIA 2.x.
        image_size: width and height in pixels for a file name.
        source: name of the annotation file, for messages.
        class_name: the class of all regions.
        class_attribute: the region attribute that says the class, as a text or as the one chosen option of a checkbox.
        classes: names of the classes. Blanks around a name do not count, here and in the file.

    Returns:
        A COCO dataset: pictures in the order of their file names, ids from 1. Boxes are [x, y, width, height] in
        pixels; boxes and areas are exact for every shape, and not cut off at the edges of the picture.

    Raises:
        InputError: an entry, a region or a class that is not as said above, or a region outside of its picture.
    """
    entries = _entries(via, source)
    regions = [region for file_name, entry in entries.items() for region in _regions(file_name, entry, source)]
    names = _class_names(regions, class_name, class_attribute, source)
    if classes is None:
        classes = [class_name] if class_attribute is None else _options(via, class_attribute) or sorted(set(names))
    category_ids = _category_ids(classes, source)
    for region, name in zip(regions, names, strict=True):
        if name not in category_ids:
            raise InputError(f"{region.where}: {name!r} is none of the classes {_quoted(classes)}; correct either")
    outlines = [outline(region.shape, region.where) for region in regions]
    images = {
        file_name: _image(image_id, file_name, image_size(file_name)) for image_id, file_name in enumerate(entries, 1)
    }
    annotations = [
        _annotation(i, region, shape, images[region.file_name], category_ids[name])
        for i, (region, shape, name) in enumerate(zip(regions, outlines, names, strict=True), 1)
    ]
    categories = [{"id": category_id, "name": name} for name, category_id in category_ids.items()]
    return {"images": list(images.values()), "annotations": annotations, "categories": categories}


def _image(image_id: int, file_name: str, size_wh: tuple[int, int]) -> dict:
    return {"id": image_id, "file_name": file_name, "width": size_wh[0], "height": size_wh[1]}


def _annotation(annotation_id: int, region: Region, shape: Outline, image: Mapping, category_id: int) -> dict:
    x, y, width, height = shape.box
    if x >= image["width"] or y >= image["height"] or x + width <= 0 or y + height <= 0:
        raise InputError(
            f"{region.where}: x {x:g} to {x + width:g}, y {y:g} to {y + height:g} is outside of the picture of "
            f"{image['width']} x {image['height']} pixels; was it resized or turned? If not, remove the region"
        )
    return {
        "id": annotation_id,
        "image_id": image["id"],
        "category_id": category_id,
        "segmentation": [shape.polygon],
        "bbox": shape.box,
        "area": shape.area,
        "iscrowd": 0,
    }


# ---- entries and regions of the three kinds of file


def _entries(via: Mapping, source: str) -> dict[str, Mapping]:
    """The entry of each picture by its file name, in alphabetical order."""
    if not isinstance(via, Mapping):
        raise InputError(f"{source}: holds a {type(via).__name__}, not the entries of the VGG Image Annotator")
    if via.keys() >= VIA_3:
        raise InputError(
            f"{source}: a project of VIA 3, which cannot be converted; export the annotations from VIA 2, or as COCO"
        )
    via = via.get("_via_img_metadata", via)
    if not isinstance(via, Mapping):
        raise InputError(
            f"{source}: _via_img_metadata is a {type(via).__name__}, expected a dict; save the project anew"
        )
    entries: dict[str, Mapping] = {}
    for key, entry in via.items():
        name = field(entry, "filename", f"{source}: {key}")
        _check_file_name(name, entries, f"{source}: {key}")
        entries[name] = entry
    return dict(sorted(entries.items()))


def _check_file_name(name: str, others: Iterable[str], where: str) -> None:
    if not isinstance(name, str) or not name:
        raise InputError(f"{where}: filename is {name!r}, expected the name of a picture")
    if REMOTE.match(name):
        raise InputError(f"{where}: filename {name!r} is an address; download the picture and give its file name")
    if name in others:
        raise InputError(f"{where}: a second entry with the filename {name!r}; remove one, or rename its picture")


def _regions(file_name: str, entry: Mapping, source: str) -> list[Region]:
    """VIA 1.x numbers the regions in a dict, VIA 2.x lists them."""
    where = f"{source}: {file_name}"
    regions = entry.get("regions", [])
    if not isinstance(regions, Mapping | list):
        raise InputError(f"{where}: the regions are a {type(regions).__name__}, expected a list or a dict")
    values = regions.values() if isinstance(regions, Mapping) else regions
    return [_region(file_name, region, f"{where}: region {number}") for number, region in enumerate(values)]


def _region(file_name: str, region: Mapping, where: str) -> Region:
    shape = field(region, "shape_attributes", where)
    attributes = region.get("region_attributes", {})
    if not isinstance(attributes, Mapping):
        raise InputError(f"{where}: region_attributes is a {type(attributes).__name__}, expected a dict")
    return Region(file_name, where, shape, attributes)


# ---- classes


def _class_names(regions: list[Region], class_name: str | None, class_attribute: str | None, source: str) -> list[str]:
    """The class of each region."""
    if (class_name is None) == (class_attribute is None):
        found = sorted({attribute for region in regions for attribute in region.attributes})
        choice = f"the attributes found are {_quoted(found)}" if found else "the regions have no attributes"
        raise InputError(
            f"{source}: give either one class for all regions (--class-name) or the region attribute that says the "
            f"class (--class-attribute); {choice}"
        )
    if class_attribute is None:
        return [class_name.strip()] * len(regions)
    return [_class_of(region, class_attribute) for region in regions]


def _class_of(region: Region, attribute: str) -> str:
    value = region.attributes.get(attribute, "")
    if isinstance(value, Mapping):  # a checkbox
        chosen = [option for option, is_chosen in value.items() if is_chosen is True]
        if len(chosen) > 1:
            raise InputError(f"{region.where}: attribute {attribute!r} has the values {_quoted(chosen)}; choose one")
        value = chosen[0] if chosen else ""
    if not isinstance(value, str):
        raise InputError(f"{region.where}: attribute {attribute!r} is {value!r:.40}, expected a text or a checkbox")
    if not value.strip():
        state = "is empty" if attribute in region.attributes else "is missing"
        raise InputError(
            f"{region.where}: attribute {attribute!r} {state}, so that the class is unknown; set it in VIA, or take "
            f"another one: the attributes of the region are {_quoted(region.attributes)}"
        )
    return value.strip()


def _options(via: Mapping, attribute: str) -> list[str]:
    """Ids of the options of a region attribute, where a project file declares them; a text attribute has none."""
    declared = via
    for key in ("_via_attributes", "region", attribute, "options"):
        declared = declared.get(key)
        if not isinstance(declared, Mapping):
            return []
    return [option for option in declared if option.strip()]


def _category_ids(classes: Sequence[str], source: str) -> dict[str, int]:
    classes = [name.strip() for name in classes]
    if not classes:
        raise InputError(f"{source}: no region, and so no class; give the classes (--classes)")
    if len(set(classes)) < len(classes) or not all(classes):
        raise InputError(
            f"{source}: the classes are {_quoted(classes)}; give each a name of its own, without empty ones"
        )
    return {name: category_id for category_id, name in enumerate(classes, 1)}


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
