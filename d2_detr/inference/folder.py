"""Predictions for image files, drawn and written to a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from d2_detr.inference.predictor import Predictor
from d2_detr.utils.errors import InputError
from d2_detr.utils.files import write_json

RESULTS = "predictions.json"


def check_output(output: Path, images: Sequence[Path]) -> None:
    """Check that the output does not mix with the input.

    Raises:
        InputError: `output` is a file, or a folder with images of the input.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: a file, expected a folder for the output")
    if output.resolve() in {path.resolve().parent for path in images}:
        raise InputError(f"{output}: this folder holds input images; choose another output folder")


def predict_files(
    predictor: Predictor, images: Sequence[Path], output: Path, *, draw: bool = True
) -> tuple[list[dict[str, Any]], list[str]]:
    """Write predictions.json and, with `draw`, a drawing of each image as .jpg to a folder.

    Returns:
        The entries of predictions.json (see Prediction.coco_results; `image_id` is the number of the image from 1, and
        `file_name` its path), and a message for each image that cannot be read, and is left out, or not be drawn.

    Raises:
        OSError: predictions.json cannot be written.
    """
    numbers = {path: number for number, path in enumerate(images, start=1)}
    stems = unique_stems(images)
    results: list[dict[str, Any]] = []
    problems: list[str] = []
    progress = tqdm(images, "Predicting", unit=" images")
    for prediction in predictor.all(progress, on_error=lambda _, error: problems.append(str(error))):
        path = prediction.image
        assert isinstance(path, Path)
        results += [entry | {"file_name": str(path)} for entry in prediction.coco_results(numbers[path])]
        if draw:
            try:
                prediction.draw(output / f"{stems[path]}.jpg")  # reads the image again
            except (InputError, OSError) as error:
                problems.append(str(error))
    write_json(results, output / RESULTS)
    return results, problems


def unique_stems(images: Sequence[Path]) -> dict[Path, str]:
    """Return the file name of each image without suffix, numbered if several images have the same name."""
    stems: dict[Path, str] = {}
    taken: set[str] = set()
    for path in images:
        stem, number = path.stem, 1
        while stem in taken:
            number += 1
            stem = f"{path.stem}_{number}"
        taken.add(stem)
        stems[path] = stem
    return stems
