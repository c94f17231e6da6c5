"""What to do with a folder or file that is not a dataset in a known layout."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath
from typing import Any

from d2_detr.utils.command_line import command
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import read_json

MAX_JSON_FILES = 20  # in a folder; if there are more, each belongs to one image
OTHER_FORMATS = {
    "YOLO": ("data.yaml", "labels/**/*.txt", "train/labels/*.txt"),
    "Pascal VOC": ("Annotations/*.xml", "annotations/*.xml", "train/*.xml", "*.xml"),
}


def suggest_remedy(root: Path) -> str:
    """Return what is wrong with a path given as a dataset and how to fix it; "" if nothing is known."""
    if not root.exists():
        return "does not exist; give the folder of a dataset"
    if not root.is_dir():
        content = _coco_content(root) if root.suffix == ".json" else None
        if content is None:
            return "is a file, not the folder of a dataset"
        return f"is a file; to make a dataset of it, run: {_split_command(root, content, root.parent)}"
    paths = sorted(path for pattern in ("*.json", "annotations/*.json") for path in root.glob(pattern))
    found = {path: content for path in paths[:MAX_JSON_FILES] if (content := _coco_content(path)) is not None}
    if len(found) == 1:
        [(path, content)] = found.items()
        return f"has one annotation file for all images; to split it, run: {_split_command(path, content, root)}"
    if found:
        names = ", ".join(str(path.relative_to(root)) for path in found)
        return (
            f"has several files in COCO format ({names}); rename the one to train on to annotations/"
            "instances_train.json, the one to validate with to annotations/instances_val.json, and the folders of "
            "their images to train/ and val/"
        )
    for name, patterns in OTHER_FORMATS.items():
        if any(next(root.glob(pattern), None) for pattern in patterns):
            return f"looks like {name} format; export it in COCO format from the labeling tool, or convert it"
    return ""


def _coco_content(path: Path) -> dict[str, Any] | None:
    """Return the content of a file in COCO format with boxes; None for any other."""
    try:
        content = read_json(path)
    except InputError:
        return None
    annotations = content.get("annotations") if isinstance(content, dict) and "images" in content else None
    is_coco = isinstance(annotations, list) and all(
        isinstance(entry, dict) and "bbox" in entry for entry in annotations
    )
    return content if is_coco else None


def _split_command(annotations: Path, content: dict[str, Any], root: Path) -> str:
    """Return the command that splits an annotation file, with the folder of its images as far as it can be found."""
    images = _image_folder(annotations, content, root)
    options = ["--images", images] if images else []
    split = command("split", annotations, *options, "--output", root / "split")
    return split if images else f"{split} --images FOLDER (none of its images was found below {root})"


def _image_folder(annotations: Path, content: dict[str, Any], root: Path) -> Path | None:
    """Return the folder from which the first image of an annotation file can be reached, by path or by name."""
    entries = content["images"] if isinstance(content["images"], list) else []
    name = next((entry["file_name"] for entry in entries if isinstance(entry, dict) and "file_name" in entry), None)
    if not isinstance(name, str) or not name:
        return None
    relative = PureWindowsPath(name).as_posix()
    folders = [annotations.parent, root, *(path for path in sorted(root.rglob("*")) if path.is_dir())]
    for candidate in (relative, PureWindowsPath(name).name):
        if found := next((folder for folder in folders if (folder / candidate).is_file()), None):
            return found
    return None
