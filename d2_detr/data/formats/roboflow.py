"""Conventions of Roboflow's exports in COCO format."""

from __future__ import annotations

import re
from pathlib import PureWindowsPath
from typing import Any

from d2_detr.data.formats.coco_sections import parse_id


def original_image_name(file_name: str) -> str | None:
    """Return the name of the original of an image augmented by Roboflow.

    Returns:
        NAME of a file FOLDER/NAME.rf.HASH.jpg, as Roboflow names augmented copies; None for other files.
    """
    if ".rf." not in file_name:  # as in most datasets
        return None
    match = re.fullmatch(r"(.+)\.rf\.[\w-]+\.\w+", PureWindowsPath(file_name).name)
    return match[1] if match else None


def without_roboflow_root(content: Any) -> Any:
    """Return the content of a file without the root category added by Roboflow.

    This category is the first, has id 0, is the supercategory of all others, and no annotation refers to it. Content
    without it is returned unchanged.
    """
    try:
        root, *others = content["categories"]
        is_root = root["supercategory"] == "none" and all(c["supercategory"] == root["name"] for c in others)
        is_used = any(parse_id(annotation["category_id"]) == 0 for annotation in content["annotations"])
    except (TypeError, KeyError, ValueError):  # not in COCO format, which parse_coco reports
        return content
    if others and is_root and parse_id(root.get("id")) == 0 and not is_used:
        return content | {"categories": others}
    return content
