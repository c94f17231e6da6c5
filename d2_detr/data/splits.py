"""One annotation file as a training and a validation part, in the layout of one's own data (see layouts.py)."""

from __future__ import annotations

import filecmp
import os
import random
import shutil
from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from d2_detr.data.datasets.layouts import LAYOUTS, TRAIN, VAL
from d2_detr.data.formats.coco import CocoFile
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import atomic_write, write_json

NOTHING = "nothing"  # what a picture without objects holds: it is shared out like a class


def write_split(
    coco: CocoFile, pictures: Path, output: Path, *, val_share: float = 0.2, seed: int = 0
) -> dict[str, CocoFile]:
    """Write both parts of a dataset below a folder, as `custom_train` and `custom_val`.

    Pictures are linked where that is possible, which takes no space, and copied where it is not.

    Args:
        pictures: folder of the pictures of `coco`. Where the way that the file has to one of them does not lead to it,
            its name is looked for there alone.
        val_share: share of the validation pictures, in (0, 1).
        seed: another one shares out otherwise.

    Returns:
        Each part by the name of its dataset.

    Raises:
        InputError: a picture is missing, or two are the same file; the classes have one picture each, so that none is
            left for validation; or there is a dataset, or something else in the place of a picture. Nothing is written.
    """
    if not 0 < val_share < 1:
        raise InputError(f"validation share {val_share}: expected a number between 0 and 1, such as 0.2")
    sources = [_find(pictures, image["file_name"], coco.path) for image in coco.images]
    names = _names(sources, coco)
    classes: dict[Hashable, set] = {image["id"]: set() for image in coco.images}
    for annotation in coco.annotations:
        classes[annotation["image_id"]].add(annotation["category_id"])
    chosen = stratified([found or {NOTHING} for found in classes.values()], val_share, seed)
    if not chosen:
        raise InputError(
            f"{coco.path}: {len(sources)} pictures are too few for two parts, with classes of one picture each"
        )
    places = {i: LAYOUTS["custom"][VAL if i in chosen else TRAIN] for i in range(len(sources))}
    targets = [output / places[i].pictures[0] / name for i, name in enumerate(names)]
    _check_free([output / place.annotations[0] for place in LAYOUTS["custom"].values()], sources, targets)
    for source, target in zip(sources, targets, strict=True):
        _place(source, target)
    parts = {}
    for split, place in LAYOUTS["custom"].items():
        images = [coco.images[i] | {"file_name": names[i]} for i in places if places[i] is place]
        parts[split] = _part(coco, images)
        write_json(parts[split].as_json(), output / place.annotations[0])
    return parts


def stratified(classes: Sequence[set[Hashable]], share: float, seed: int) -> set[int]:
    """Which of the pictures, given by the classes in each, are for validation.

    Both parts get their shares of the pictures of every class, the rarest first, as nearly as pictures of several
    classes allow: iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011). The only picture of a class is for
    training; of few at least one is wanted for each part.
    """
    order = random.Random(seed).sample(range(len(classes)), len(classes))
    counts = Counter(name for found in classes for name in found)
    wanted = {name: min(max(count * share, 1), count - 1) for name, count in counts.items()}
    wanted_in_all, left, chosen = share * len(classes), dict.fromkeys(order), set()
    while left:
        remaining = Counter(name for i in left for name in classes[i])
        rarest = min(remaining, key=lambda name: (remaining[name], counts[name], str(name)))
        for i in [i for i in left if rarest in classes[i]]:
            # Training wants what remains beyond the wishes of validation; whoever wants more gets it.
            if (wanted[rarest] - remaining[rarest] / 2, wanted_in_all - len(left) / 2) > (0, 0):
                chosen.add(i)
                wanted_in_all -= 1
                for name in classes[i]:
                    wanted[name] -= 1
            remaining[rarest] -= 1
            del left[i]
    return chosen


def _find(folder: Path, file_name: str, annotations: Path) -> Path:
    """Where a picture lies; some tools write ways of the machine that they ran on, also with backslashes."""
    way = PureWindowsPath(file_name)
    candidates = [folder / file_name, folder / way.as_posix(), folder / way.name]
    for path in candidates:
        if path.is_file():
            return path
    raise InputError(
        f"{candidates[0]}: named in {annotations}, but there is no such picture; say where with --pictures"
    )


def _names(sources: Sequence[Path], coco: CocoFile) -> list[str]:
    """The names of files where all differ, else the ways of the annotations."""
    if twice := [path for path, count in Counter(path.resolve() for path in sources).items() if count > 1]:
        raise InputError(f"{coco.path}: {twice[0]} is the picture of two entries of `images`; merge them")
    names = [path.name for path in sources]
    if len(set(names)) == len(names):
        return names
    names = [PureWindowsPath(image["file_name"]).as_posix() for image in coco.images]
    if outside := [name for name in names if ".." in Path(name).parts or Path(name).is_absolute()]:
        raise InputError(f"{coco.path}: {outside[0]} leads out of the folder, and its name alone is not the only one")
    return names


def _check_free(annotations: Sequence[Path], sources: Sequence[Path], targets: Sequence[Path]) -> None:
    if there := [path for path in annotations if path.exists()]:
        raise InputError(f"{there[0]} is there already; choose another --output")
    for source, target in zip(sources, targets, strict=True):
        if target.exists() and not filecmp.cmp(source, target, shallow=False):
            raise InputError(f"{target} is there already, and another picture than {source}; choose another --output")


def _place(source: Path, target: Path) -> None:
    if target.exists():  # from a run that was interrupted
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or one that knows no links
        with atomic_write(target) as temporary:
            shutil.copyfile(source, temporary)


def _part(coco: CocoFile, images: list[dict[str, Any]]) -> CocoFile:
    ids = {image["id"] for image in images}
    annotations = [annotation for annotation in coco.annotations if annotation["image_id"] in ids]
    return CocoFile(coco.path, images, annotations, coco.categories)
