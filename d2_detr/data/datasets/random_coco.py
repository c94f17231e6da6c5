"""A dataset of random polygons that is as large as COCO, to measure how long it takes to read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from PIL import Image
from tqdm import tqdm

from d2_detr.utils.errors import InputError
from d2_detr.utils.files import atomic_write, read_json, write_json

SIZES_WH = ((640, 480), (480, 640), (640, 427), (427, 640), (500, 375))
NUM_CLASSES = 80
MEAN_POINTS = 20  # of a polygon, as in COCO
MAX_COMMENT = 4000  # bytes
DESCRIPTION = "random_coco.json"


def make_random_coco(
    folder: Path, *, num_images: int, num_val_images: int, num_annotations: int, seed: int = 0
) -> None:
    """Write a dataset with COCO's layout, unless the folder has it.

    All images of a size show the same; their files differ in a comment.

    Args:
        folder: of the dataset.
        num_images: training images.
        num_val_images: validation images, in addition; they have as many objects each.
        num_annotations: objects in the training images.
        seed: of the random numbers.

    Raises:
        InputError: the folder has another dataset.
    """
    description = {"train": num_images, "val": num_val_images, "annotations": num_annotations, "seed": seed}
    written = folder / DESCRIPTION
    if written.is_file():
        if read_json(written) != description:
            raise InputError(f"{folder} has a dataset of other numbers, see {written}; give another folder")
        return
    if folder.is_dir() and any(folder.iterdir()) and not (folder / f".{DESCRIPTION}").is_file():
        raise InputError(f"{folder}: not empty, and not a dataset of this command; give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f".{DESCRIPTION}").touch()  # an interrupted run may be continued
    per_image = num_annotations / num_images
    rng = np.random.default_rng(seed)
    for split, number in (("train", num_images), ("val", num_val_images)):
        _write_split(folder, split, number, round(per_image * number), rng)
    write_json(description, written)


def _write_split(folder: Path, split: str, num_images: int, num_annotations: int, rng: np.random.Generator) -> None:
    images_folder = folder / f"{split}2017"
    images_folder.mkdir(exist_ok=True)
    jpegs = [_random_jpeg(size_wh, rng) for size_wh in SIZES_WH]
    sizes = rng.integers(len(SIZES_WH), size=num_images)
    comment_lengths = rng.integers(20, MAX_COMMENT, size=num_images)
    # Annotations are not sorted by image, as in COCO.
    images_of_annotations = rng.integers(num_images, size=num_annotations)
    images = []
    for i in tqdm(range(num_images), f"Writing images of {split}", unit=" images"):
        name = f"{split}_{i:012}.jpg"
        comment = name.encode().ljust(int(comment_lengths[i]))
        (images_folder / name).write_bytes(_with_comment(jpegs[sizes[i]], comment))
        width, height = SIZES_WH[sizes[i]]
        images.append({"id": i + 1, "file_name": name, "width": width, "height": height})
    with (
        atomic_write(folder / "annotations" / f"instances_{split}2017.json") as temporary,
        temporary.open("wb") as file,
    ):
        file.write(b'{"info": {}, "licenses": [], "images": ' + orjson.dumps(images) + b', "annotations": [')
        parts = np.array_split(images_of_annotations, max(1, num_annotations // 5000))
        number = 0
        for part in tqdm(parts, f"Writing annotations of {split}"):
            sizes_wh = np.array(SIZES_WH)[sizes[part]]
            for image, annotation in zip(part.tolist(), _annotations(sizes_wh, rng), strict=True):
                number += 1
                file.write(b", " * (number > 1) + orjson.dumps(annotation | {"image_id": image + 1, "id": number}))
        categories = [{"id": i + 1, "name": f"class {i + 1}"} for i in range(NUM_CLASSES)]
        file.write(b'], "categories": ' + orjson.dumps(categories) + b"}")


def _random_jpeg(size_wh: tuple[int, int], rng: np.random.Generator) -> bytes:
    """Return a JPEG file with smooth random colors."""
    colors = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size_wh, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    colors.save(buffer, "JPEG", quality=30)
    return buffer.getvalue()


def _with_comment(jpeg: bytes, comment: bytes) -> bytes:
    """Insert a comment (marker FF FE) after the first marker of a JPEG file."""
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]


def _annotations(sizes_wh: np.ndarray, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Yield an object for each image size (N, 2), without ids: an ellipse with a rough outline."""
    number = len(sizes_wh)
    num_points = 4 + rng.poisson(MEAN_POINTS - 4, number)
    radii = sizes_wh * rng.uniform(0.02, 0.2, (number, 2))
    centers = radii * 1.3 + rng.random((number, 2)) * (sizes_wh - 2.6 * radii)
    first = np.concatenate(([0], np.cumsum(num_points)[:-1]))
    step = np.arange(num_points.sum()) - np.repeat(first, num_points)
    angles = 2 * np.pi * step / np.repeat(num_points, num_points)
    roughness = rng.uniform(0.8, 1.2, len(angles))
    directions = np.stack((np.cos(angles), np.sin(angles)), axis=1) * roughness[:, None]
    points = (np.repeat(centers, num_points, axis=0) + np.repeat(radii, num_points, axis=0) * directions).round(2)
    corner, opposite = np.minimum.reduceat(points, first), np.maximum.reduceat(points, first)
    boxes = np.concatenate((corner, opposite - corner), axis=1).round(2)
    outlines = np.split(points, first[1:])
    classes = rng.integers(1, NUM_CLASSES + 1, number)
    for outline, box, category_id in zip(outlines, boxes.tolist(), classes.tolist(), strict=True):
        yield {
            "segmentation": [outline.ravel().tolist()],
            "area": round(0.75 * box[2] * box[3], 4),
            "iscrowd": 0,
            "bbox": box,
            "category_id": category_id,
        }
