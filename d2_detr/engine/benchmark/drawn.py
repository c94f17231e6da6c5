"""A dataset of drawn JPEG images in a folder, for what begins with files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from d2_detr.config.keys import CUSTOM_VAL
from d2_detr.data.datasets import load_dataset
from d2_detr.data.datasets.synthetic import draw_image
from d2_detr.structures.dataset import Dataset
from d2_detr.utils.files import write_json

DIFFERENT_IMAGES = 8  # the others are copies: drawing takes longer than what is measured


def drawn_dataset(folder: Path, num_images: int, side: int, *, evaluated: bool) -> Dataset:
    """Draw square images with balloons to a folder, in the layout of a custom dataset.

    Args:
        side: width and height in pixels.
        evaluated: also prepare what AP is measured against.
    """
    images_folder = folder / "val2017"
    images_folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    images: list[dict] = []
    annotations: list[dict] = []
    outlines_per_image: list[list[np.ndarray]] = []
    for number in range(num_images):
        name = f"{number:05}.jpg"
        if number < DIFFERENT_IMAGES:
            image, outlines = draw_image(random, side)
            image.save(images_folder / name, quality=92)
            outlines_per_image.append(outlines)
        else:
            shutil.copy(images_folder / f"{number % DIFFERENT_IMAGES:05}.jpg", images_folder / name)
        images.append({"id": number, "file_name": name, "width": side, "height": side})
        for outline in outlines_per_image[number % DIFFERENT_IMAGES]:
            annotations.append(_annotation(len(annotations) + 1, number, outline))
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "balloon"}]}
    write_json(content, folder / "annotations/custom_val.json")
    return load_dataset(CUSTOM_VAL, folder, evaluated=evaluated)  # nosec B615  # of this project, no download


def _annotation(annotation_id: int, image_id: int, outline: np.ndarray) -> dict:
    corner, (width, height) = outline.min(0), np.ptp(outline, axis=0).tolist()
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": 1,
        "bbox": [*corner.tolist(), width, height],
        "area": width * height,
        "iscrowd": 0,
        "segmentation": [outline.flatten().tolist()],
    }
