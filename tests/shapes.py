"""A dataset of drawn shapes with three classes and gaps in its category ids, in the `custom` layout.

python -m tests.shapes FOLDER [IMAGES] draws one that a compact model can learn.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CATEGORIES = {3: "disc", 7: "square", 20: "triangle"}


def draw_shapes(root: Path, *, num_images: tuple[int, int] = (6, 3), size: int = 64) -> Path:
    """Write `num_images` of `size` x `size` pixels to both splits, with 1 to 4 shapes each."""
    rng = np.random.default_rng(0)
    for split, folder, number in zip(("train", "val"), ("train2017", "val2017"), num_images, strict=True):
        (root / folder).mkdir(parents=True, exist_ok=True)
        coco = _draw_split(root / folder, rng, number, size)
        write(coco, root, split)
    return root


def write(coco: object, root: Path, split: str) -> None:
    path = root / "annotations" / f"custom_{split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(coco))


def read(root: Path, split: str) -> dict:
    return json.loads((root / "annotations" / f"custom_{split}.json").read_text())


def _draw_split(folder: Path, rng: np.random.Generator, num_images: int, size: int) -> dict:
    images, annotations = [], []
    for image_id in range(1, num_images + 1):
        image = Image.new("RGB", (size, size), tuple(rng.integers(150, 256, 3).tolist()))
        for _ in range(rng.integers(1, 5)):
            category_id = int(rng.choice(list(CATEGORIES)))
            side = int(rng.integers(size // 6, size // 3))
            x, y = (int(corner) for corner in rng.integers(0, size - side, 2))
            polygon = _draw_shape(ImageDraw.Draw(image), CATEGORIES[category_id], x, y, side, rng)
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": image_id,
                    "category_id": category_id,
                    "bbox": [x, y, side, side],
                    "segmentation": [polygon],
                    "area": side * side,
                    "iscrowd": 0,
                }
            )
        images.append({"id": image_id, "file_name": f"{image_id:05}.png", "width": size, "height": size})
        image.save(folder / images[-1]["file_name"])
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": category_id, "name": name} for category_id, name in CATEGORIES.items()],
    }


def _draw_shape(draw: ImageDraw.ImageDraw, name: str, x: int, y: int, side: int, rng: np.random.Generator) -> list[int]:
    color = tuple(rng.integers(0, 150, 3).tolist())
    right, bottom = x + side - 1, y + side - 1
    if name == "disc":
        draw.ellipse((x, y, right, bottom), fill=color)
    elif name == "square":
        draw.rectangle((x, y, right, bottom), fill=color)
    else:
        draw.polygon([(x, bottom), (right, bottom), (x + side // 2, y)], fill=color)
        return [x, y + side, x + side, y + side, x + side // 2, y]
    return [x, y, x + side, y, x + side, y + side, x, y + side]


if __name__ == "__main__":
    number = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    draw_shapes(Path(sys.argv[1]), num_images=(number, number // 10), size=128)
