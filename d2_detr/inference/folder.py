"""Predictions for picture files, drawn and written into a folder."""

from __future__ import annotations

import glob
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from d2_detr.data.images import SUFFIXES
from d2_detr.inference.predictor import Predictor
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import write_json

RESULTS = "predictions.json"


def find_images(names: Iterable[str]) -> list[Path]:
    """The pictures that are meant by paths, by folders (without what lies below them) and by patterns as
    "photos/**/*.jpg", sorted and each of them once.

    Raises:
        InputError: a name that means no picture.
    """
    found: set[Path] = set()
    for name in names:
        path = Path(name)
        if path.is_file():
            matches = [path]
        elif path.is_dir():
            matches = [p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
        else:
            matches = [p for p in map(Path, glob.glob(name, recursive=True)) if p.is_file()]
        if not matches:
            raise InputError(f"{name}: {_nothing_there(path)}")
        found.update(matches)
    return sorted(found)


def _nothing_there(path: Path) -> str:
    if not path.is_dir():
        return "no such file or folder; give pictures, a folder of them, or a pattern as 'photos/**/*.jpg'"
    below = sorted({p.suffix for p in path.rglob("*") if p.suffix.lower() in SUFFIXES})
    if not below:
        return "a folder without pictures"
    patterns = shlex.join(f"{glob.escape(str(path))}/**/*{suffix}" for suffix in below)
    return f"its pictures are in folders below it; give {patterns}"


def check_output(output: Path, pictures: Sequence[Path]) -> None:
    """See that nothing would be written among the pictures.

    Raises:
        InputError: it would, or `output` is no folder.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: a file, expected a folder to write to")
    if output.resolve() in {path.resolve().parent for path in pictures}:
        raise InputError(f"{output}: pictures to be looked at lie in this folder; write to another one")


def predict_files(
    predictor: Predictor, pictures: Sequence[Path], output: Path, *, draw: bool = True
) -> tuple[list[dict[str, Any]], list[str]]:
    """Write what is found in pictures to `output`: predictions.json, and each picture with it as a .jpg.

    Returns:
        The entries of predictions.json (see Prediction.coco_results; `image_id` is the number of the picture from 1,
        and `file_name` its path), and what is wrong with the pictures that cannot be read, which are left out.
    """
    numbers = {path: number for number, path in enumerate(pictures, start=1)}
    names = drawing_names(pictures)
    found: list[dict[str, Any]] = []
    problems: list[str] = []
    progress = tqdm(pictures, "Predicting", unit=" pictures")
    for prediction in predictor.all(progress, on_error=lambda _, error: problems.append(str(error))):
        path = prediction.picture
        found += [entry | {"file_name": str(path)} for entry in prediction.coco_results(numbers[path])]
        if draw:
            prediction.draw(output / names[path])
    write_json(found, output / RESULTS)
    return found, problems


def drawing_names(pictures: Sequence[Path]) -> dict[Path, str]:
    """A name for the drawing of each picture: its own, as .jpg, with a number where there are several of it."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path in pictures:
        name, number = path.stem, 1
        while name in taken:
            number += 1
            name = f"{path.stem}_{number}"
        taken.add(name)
        names[path] = f"{name}.jpg"
    return names
