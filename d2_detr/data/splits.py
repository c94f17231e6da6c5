"""Split one annotation file into the training and validation set of a dataset."""

from __future__ import annotations

import filecmp
import os
import random
import shutil
from collections import Counter
from collections.abc import Hashable, Sequence
from contextlib import suppress
from pathlib import Path, PureWindowsPath

from d2_detr.config.keys import CUSTOM_TRAIN, CUSTOM_VAL
from d2_detr.data.datasets.layouts import LAYOUTS
from d2_detr.data.formats.coco import CocoFile
from d2_detr.data.formats.coco_sections import Entry
from d2_detr.data.formats.file_names import image_path
from d2_detr.data.formats.roboflow import original_image_name
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import atomic_write, write_json

NO_OBJECTS = "no objects"  # stands for a class of the images without objects


def write_split(
    coco: CocoFile, image_root: Path, output: Path, *, val_share: float = 0.2, seed: int = 0
) -> dict[str, CocoFile]:
    """Write a dataset with the splits `custom_train` and `custom_val` into a folder.

    Augmented copies of an image, as Roboflow exports them, stay in one split. Images are hard-linked if possible, which
    takes no space, and copied otherwise.

    Args:
        image_root: folder of the images. An image that is not at the path in the file is searched by its name alone.
        val_share: share of the validation images, in (0, 1).
        seed: of the random order of the images.

    Returns:
        The splits by dataset name.

    Raises:
        InputError: an image is missing, or two entries have the same one; there are too few images to split; or the
            output has annotations, or another file in the place of an image. Nothing is written then.
    """
    if not 0 < val_share < 1:
        raise InputError(f"validation share {val_share}: expected a number between 0 and 1, such as 0.2")
    sources = [_find(image_root, image["file_name"], coco.path) for image in coco.images]
    names = _target_names(sources, coco)
    val_indices = _validation_images(coco, val_share, seed)
    if not val_indices:
        raise InputError(
            f"{coco.path}: {len(sources)} images are too few to split; annotate two or more images of a class"
        )
    layout = {split: LAYOUTS["custom"][split] for split in (CUSTOM_TRAIN, CUSTOM_VAL)}
    places = [layout[CUSTOM_VAL if i in val_indices else CUSTOM_TRAIN] for i in range(len(sources))]
    targets = [output / place.images[0] / name for place, name in zip(places, names, strict=True)]
    _check_free([output / place.annotations[0] for place in layout.values()], sources, targets)
    for source, target in zip(sources, targets, strict=True):
        _link_or_copy(source, target)
    splits = {}
    for split, place in layout.items():
        images = [coco.images[i] | {"file_name": names[i]} for i in range(len(names)) if places[i] is place]
        splits[split] = _subset(coco, images)
        write_json(splits[split].as_json(), output / place.annotations[0])
    return splits


def _validation_images(coco: CocoFile, share: float, seed: int) -> set[int]:
    """Choose the indices of the validation images, with all copies of an image."""
    classes: dict[Hashable, set[Hashable]] = {image["id"]: set() for image in coco.images}
    for annotation in coco.annotations:
        classes[annotation["image_id"]].add(annotation["category_id"])
    groups: dict[Hashable, list[int]] = {}
    for i, image in enumerate(coco.images):
        groups.setdefault(original_image_name(image["file_name"]) or i, []).append(i)
    classes_per_group = [set().union(*(classes[coco.images[i]["id"]] for i in group)) for group in groups.values()]
    chosen = stratified_subset([found or {NO_OBJECTS} for found in classes_per_group], share, seed)
    return {i for number, group in enumerate(groups.values()) if number in chosen for i in group}


def stratified_subset(classes: Sequence[set[Hashable]], share: float, seed: int) -> set[int]:
    """Choose a share of the images that has this share of every class.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011): starts with the rarest class, and follows the
    shares as closely as images of several classes allow. The only image of a class is not chosen.

    Args:
        classes: the classes in each image.
        share: of the chosen images, in (0, 1).
        seed: of the random order of the images.

    Returns:
        The indices of the chosen images.
    """
    order = random.Random(seed).sample(range(len(classes)), len(classes))
    counts = Counter(name for names in classes for name in names)
    wanted = {name: min(max(count * share, 1), count - 1) for name, count in counts.items()}
    wanted_in_total, left, chosen = share * len(classes), dict.fromkeys(order), set()
    while left:
        remaining = Counter(name for i in left for name in classes[i])
        rarest = min(remaining, key=lambda name: (remaining[name], counts[name], str(name)))
        for i in [i for i in left if rarest in classes[i]]:
            # The chosen images lack `wanted` of this class, the others the rest of `remaining`. Who lacks more gets it.
            if (wanted[rarest] - remaining[rarest] / 2, wanted_in_total - len(left) / 2) > (0, 0):
                chosen.add(i)
                wanted_in_total -= 1
                for name in classes[i]:
                    wanted[name] -= 1
            remaining[rarest] -= 1
            del left[i]
    return chosen


def _find(folder: Path, file_name: str, annotations: Path) -> Path:
    """Return the path of an image, also if the file has a path of another machine or outside the folder."""
    windows_path = PureWindowsPath(file_name)
    for name in (file_name, windows_path.as_posix(), windows_path.name):
        with suppress(InputError):
            if (path := image_path(folder, name)).is_file():
                return path
    raise InputError(f"{folder / file_name}: no such image, but {annotations} lists it; give its folder with --images")


def _target_names(sources: Sequence[Path], coco: CocoFile) -> list[str]:
    """Return the file names if they are unique, or else the paths in the annotations."""
    if repeated := [path for path, count in Counter(path.resolve() for path in sources).items() if count > 1]:
        raise InputError(f"{coco.path}: two entries of `images` have the image {repeated[0]}; merge them")
    names = [path.name for path in sources]
    if len(set(names)) == len(names):
        return names
    names = [PureWindowsPath(image["file_name"]).as_posix() for image in coco.images]
    if outside := [name for name in names if ".." in Path(name).parts or Path(name).is_absolute()]:
        raise InputError(
            f"{coco.path}: {outside[0]} is outside the folder of the images, and another image has the same name; "
            "rename one of them"
        )
    return names


def _check_free(annotations: Sequence[Path], sources: Sequence[Path], targets: Sequence[Path]) -> None:
    if existing := [path for path in annotations if path.exists()]:
        raise InputError(f"{existing[0]} exists already; choose another --output")
    for source, target in zip(sources, targets, strict=True):
        if target.exists() and not filecmp.cmp(source, target, shallow=False):
            raise InputError(f"{target} exists already, and differs from {source}; choose another --output")


def _link_or_copy(source: Path, target: Path) -> None:
    if target.exists():  # from an interrupted run
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or a file system without hard links
        with atomic_write(target) as temporary:
            shutil.copyfile(source, temporary)


def _subset(coco: CocoFile, images: list[Entry]) -> CocoFile:
    ids = {image["id"] for image in images}
    annotations = [annotation for annotation in coco.annotations if annotation["image_id"] in ids]
    return CocoFile(coco.path, images, annotations, coco.categories)
