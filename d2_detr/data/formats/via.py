"""Annotations of the VGG Image Annotator (VIA), converted to COCO format."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from d2_detr.data.formats.coco_sections import is_unicode, shown
from d2_detr.data.formats.coco_segmentations import outline_problem
from d2_detr.data.formats.file_names import image_path
from d2_detr.data.formats.via_shapes import Outline, outline, required_field
from d2_detr.data.images import image_size
from d2_detr.utils.errors import InputError, error_context

VIA_FILE = "via_region_data.json"  # the usual name
PROJECT_ENTRIES = "_via_img_metadata"  # holds the entries in a project file of VIA 2
VIA_3_KEYS = {"project", "metadata", "file"}
REMOTE = re.compile(r"[a-z]+://|www\.[^/]+/", re.IGNORECASE)


class Region(NamedTuple):
    """An annotated region."""

    file_name: str
    where: str  # file, image and region, for messages
    outline: Outline
    attributes: Mapping[str, Any]


class ViaFile(NamedTuple):
    """Checked annotations."""

    source: str  # the file, for messages
    images: Sequence[str]  # file names in alphabetical order
    regions: Sequence[Region]  # in the order of the images
    content: Mapping[str, Any]  # of the file


def via_entries(content: object) -> list[Mapping[str, Any]]:
    """Return the image entries of VIA annotations; none of other content."""
    entries = content.get(PROJECT_ENTRIES, content) if isinstance(content, Mapping) else None
    values = entries.values() if isinstance(entries, Mapping) else ()
    return [entry for entry in values if isinstance(entry, Mapping) and "filename" in entry]


def is_via(content: object) -> bool:
    """Return whether the content of a file is an export or a project of VIA."""
    return bool(via_entries(content)) or (isinstance(content, Mapping) and PROJECT_ENTRIES in content)


def parse_via(content: Any, source: str | Path) -> ViaFile:
    """Check the content of an export of VIA 1 or 2, or a project file of VIA 2.

    Args:
        source: the file, for messages.

    Raises:
        InputError: an entry or a region is invalid.
    """
    source = str(source)
    entries = _checked_entries(content, source)
    regions = [region for file_name, entry in entries.items() for region in _regions(file_name, entry, source)]
    return ViaFile(source, list(entries), regions, content)


def via_to_coco(
    via: ViaFile,
    image_root: Path,
    *,
    class_name: str | None = None,
    class_attribute: str | None = None,
    classes: Sequence[str] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Convert VIA annotations to the content of a COCO file.

    Either `class_name` or `class_attribute` gives the class of a region. The classes get the ids 1, 2, ... in the order
    of `classes`. Without `classes` the order is that of the options that a project file declares for the attribute (a
    class is named by the id of its option), or else alphabetical; the ids then depend on the regions, so pass the same
    `classes` for all splits of a dataset. Every class becomes a category, with or without regions.

    Args:
        image_root: folder of the images.
        class_name: the class of all regions.
        class_attribute: the region attribute that holds the class, as text or as the one checked option of a checkbox.
        classes: names of the classes. Whitespace around a name is ignored, here and in the file.

    Returns:
        COCO's sections, with images in the order of their file names and ids from 1. Boxes are [x, y, width, height]
        in pixels; boxes and areas are exact for every shape, and not clipped to the image.

    Raises:
        FileNotFoundError: an image does not exist.
        InputError: a class is invalid, a file is no image, or a region is outside its image.
    """
    names = _class_names(via, class_name, class_attribute)
    if classes is None:
        classes = classes_in_file(via, class_name, class_attribute)
    category_ids = _category_ids(classes, via.source)
    for region, name in zip(via.regions, names, strict=True):
        if name not in category_ids:
            raise InputError(
                f"{region.where}: {name!r} is not one of the classes {_quoted(classes)}; correct it or add it to them"
            )
    images = {name: _image(image_id, name, image_root, via.source) for image_id, name in enumerate(via.images, 1)}
    annotations = [
        _annotation(i, region, images[region.file_name], category_ids[name])
        for i, (region, name) in enumerate(zip(via.regions, names, strict=True), 1)
    ]
    categories = [{"id": category_id, "name": name} for name, category_id in category_ids.items()]
    return {"images": list(images.values()), "annotations": annotations, "categories": categories}


def classes_in_file(via: ViaFile, class_name: str | None = None, class_attribute: str | None = None) -> Sequence[str]:
    """Return the classes that a file has by itself; see `via_to_coco`."""
    names = _class_names(via, class_name, class_attribute)
    if class_name is not None:
        return [class_name]
    return _declared_options(via.content, class_attribute) or sorted(set(names))


def _image(image_id: int, file_name: str, image_root: Path, source: str) -> dict[str, Any]:
    try:
        with error_context(source):
            width, height = image_size(image_path(image_root, file_name))
    except FileNotFoundError as error:
        hint = "add it, or give its folder (via-to-coco --images)"
        raise FileNotFoundError(f"{error}, but {source} names it; {hint}") from error
    return {"id": image_id, "file_name": file_name, "width": width, "height": height}


def _annotation(annotation_id: int, region: Region, image: Mapping[str, Any], category_id: int) -> dict[str, Any]:
    shape = region.outline
    x, y, width, height = shape.box
    if x >= image["width"] or y >= image["height"] or x + width <= 0 or y + height <= 0:
        raise InputError(
            f"{region.where}: x {x:g} to {x + width:g}, y {y:g} to {y + height:g} is outside the image of "
            f"{image['width']} x {image['height']} pixels; restore the image if it was resized or rotated, or remove "
            "the region"
        )
    if problem := outline_problem(shape.polygon, (image["width"], image["height"])):
        raise InputError(f"{region.where}: {problem}")
    return {
        "id": annotation_id,
        "image_id": image["id"],
        "category_id": category_id,
        "segmentation": [shape.polygon],
        "bbox": shape.box,
        "area": shape.area,
        "iscrowd": 0,
    }


# ---- entries and regions of an export or a project


def _checked_entries(via: object, source: str) -> dict[str, Mapping[str, Any]]:
    """Return the entries by file name, in alphabetical order."""
    if not isinstance(via, Mapping):
        raise InputError(f"{source}: holds a {type(via).__name__}, expected annotations of the VGG Image Annotator")
    if via.keys() >= VIA_3_KEYS:
        raise InputError(
            f"{source}: a project of VIA 3, which cannot be converted; export the annotations from VIA 2, or as COCO"
        )
    content = via.get(PROJECT_ENTRIES, via)
    if not isinstance(content, Mapping):
        raise InputError(
            f"{source}: {PROJECT_ENTRIES} is of type {type(content).__name__}, expected an object; save it again"
        )
    entries: dict[str, Mapping[str, Any]] = {}
    for key, entry in content.items():
        name = required_field(entry, "filename", f"{source}: {key}")
        _check_file_name(name, entries, f"{source}: {key}")
        entries[name] = entry
    return dict(sorted(entries.items()))


def _check_file_name(name: object, others: Collection[str], where: str) -> None:
    if not isinstance(name, str) or not name:
        raise InputError(f"{where}: filename is {shown(name)}, expected the name of an image")
    if REMOTE.match(name):
        raise InputError(f"{where}: filename {name!r} is a URL; download the image and enter its file name")
    if name in others:
        raise InputError(f"{where}: duplicate filename {name!r}; remove the entry or rename its image")


def _regions(file_name: str, entry: Mapping[str, Any], source: str) -> list[Region]:
    """Return the regions of an image: an object in VIA 1, a list in VIA 2."""
    where = f"{source}: {file_name}"
    regions = entry.get("regions", [])
    if not isinstance(regions, Mapping | list):
        raise InputError(f"{where}: regions is of type {type(regions).__name__}, expected a list or an object")
    values = regions.values() if isinstance(regions, Mapping) else regions
    return [_region(file_name, region, f"{where}: region {i}") for i, region in enumerate(values)]


def _region(file_name: str, region: Any, where: str) -> Region:
    shape = required_field(region, "shape_attributes", where)
    attributes = region.get("region_attributes", {})
    if not isinstance(attributes, Mapping):
        raise InputError(f"{where}: region_attributes is of type {type(attributes).__name__}, expected an object")
    return Region(file_name, where, outline(shape, where), attributes)


# ---- classes


def _class_names(via: ViaFile, class_name: str | None, class_attribute: str | None) -> list[str]:
    """Return the class of each region."""
    if class_name is not None and class_attribute is None:
        return [class_name.strip()] * len(via.regions)
    if class_name is None and class_attribute is not None:
        return [_class_name(region, class_attribute) for region in via.regions]
    attributes = sorted({attribute for region in via.regions for attribute in region.attributes})
    choice = f"the attributes are {_quoted(attributes)}" if attributes else "the regions have no attributes"
    raise InputError(
        f"{via.source}: pass either one class for all regions (--class-name) or the region attribute that holds the "
        f"class (--class-attribute); {choice}"
    )


def _class_name(region: Region, attribute: str) -> str:
    value = region.attributes.get(attribute, "")
    if isinstance(value, Mapping):  # a checkbox
        checked = [option for option, is_checked in value.items() if is_checked is True]
        if len(checked) > 1:
            raise InputError(f"{region.where}: attribute {attribute!r} has the values {_quoted(checked)}; choose one")
        value = checked[0] if checked else ""
    if not isinstance(value, str):
        raise InputError(f"{region.where}: attribute {attribute!r} is {shown(value)}, expected text or a checkbox")
    if not value.strip():
        state = "is empty" if attribute in region.attributes else "is missing"
        raise InputError(
            f"{region.where}: attribute {attribute!r} {state}, so the class is unknown; set it in VIA, or choose "
            f"another attribute: the region has {_quoted(region.attributes)}"
        )
    return value.strip()


def _declared_options(content: Any, attribute: str | None) -> list[str]:
    """Return the ids of the options that a project declares for an attribute."""
    for key in ("_via_attributes", "region", attribute, "options"):
        content = content.get(key)
        if not isinstance(content, Mapping):
            return []
    return [option.strip() for option in content if option.strip()]


def _category_ids(classes: Sequence[str], source: str) -> dict[str, int]:
    classes = [name.strip() for name in classes]
    if not classes:
        raise InputError(f"{source}: there are no regions to take the classes from; pass the classes (--classes)")
    if len(set(classes)) < len(classes) or not all(classes):
        raise InputError(f"{source}: the classes {_quoted(classes)} have an empty or duplicate name; correct them")
    if not all(map(is_unicode, classes)):
        raise InputError(f"{source}: the classes {_quoted(classes)} have a name that is no valid Unicode; correct it")
    return {name: category_id for category_id, name in enumerate(classes, 1)}


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
