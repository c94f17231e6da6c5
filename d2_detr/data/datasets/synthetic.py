"""Drawn balloons: a detection problem that a small model learns from scratch in minutes, without a download.

Annotations are in the format of VIA 1.x, like those of the real balloon dataset, so that both are handled alike.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from tqdm import tqdm

from d2_detr.data.formats.via import VIA_FILE
from d2_detr.utils.files import write_json

SUPERSAMPLING = 3  # images are drawn larger by this factor and scaled down, for smooth edges
MAX_OVERLAP = 0.35  # share of the smaller of two boxes, so that no balloon hides another


def draw_dataset(folder: Path, num_images: int, *, size: int = 128, seed: int = 0) -> None:
    """Write JPEG images of `size` x `size` pixels and their via_region_data.json to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    via = {}
    for number in tqdm(range(num_images), desc=f"Drawing {folder}", unit=" images"):
        path = folder / f"balloons_{number:05}.jpg"
        image, polygons = draw_image(rng, size)
        image.save(path, quality=92)
        via[f"{path.name}{path.stat().st_size}"] = _via_entry(path, polygons)
    write_json(via, folder / VIA_FILE)


def draw_image(rng: np.random.Generator, size: int = 128) -> tuple[Image.Image, list[np.ndarray]]:
    """Draw an image of 1 to 4 balloons among distractors.

    Returns:
        The image, and the outline (N, 2) of each balloon in pixels (x, y).
    """
    scale = size * SUPERSAMPLING
    image = _sky(rng, scale)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(0, 4)):
        _draw_distractor(draw, rng, scale)
    outlines: list[np.ndarray] = []
    for _ in range(rng.integers(1, 5)):
        outline = _place(rng, outlines)
        if outline is not None:
            _draw_balloon(draw, rng, outline * scale)
            outlines.append(outline)
    image = image.resize((size, size), Image.Resampling.BOX)
    noise = rng.normal(0, rng.uniform(0, 10), (size, size, 3))
    image = Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
    return image, [outline * size for outline in outlines]


def _sky(rng: np.random.Generator, scale: int) -> Image.Image:
    """Draw a smooth background of a few random colors."""
    colors = rng.integers(40, 230, (3, 3, 3)).astype(np.uint8)
    backdrop = Image.fromarray(colors).resize((scale, scale), Image.Resampling.BICUBIC)
    return backdrop.filter(ImageFilter.GaussianBlur(scale / 40))


def _place(rng: np.random.Generator, others: list[np.ndarray]) -> np.ndarray | None:
    """Find an outline inside the image, in units of it, that overlaps no other too much; None if there is no room."""
    for _ in range(20):
        outline = _outline(rng)
        if outline.min() >= 0 and outline.max() <= 1 and all(_overlap(outline, o) <= MAX_OVERLAP for o in others):
            return outline
    return None


def _outline(rng: np.random.Generator, points: int = 36) -> np.ndarray:
    """Return a slightly tilted egg that tapers toward its knot."""
    radius = rng.uniform(0.06, 0.2)
    tall = rng.uniform(1.05, 1.35)
    angle = np.linspace(0, 2 * math.pi, points, endpoint=False)
    taper = 1 - 0.22 * np.clip(np.sin(angle), 0, 1) ** 2  # y points down: the lower half is the narrow one
    egg = np.stack([np.cos(angle) * taper, np.sin(angle) * tall], 1) * radius
    tilt = rng.normal(0, 0.25)
    rotation = np.array([[math.cos(tilt), math.sin(tilt)], [-math.sin(tilt), math.cos(tilt)]])
    return egg @ rotation + rng.uniform(radius, 1 - radius, 2)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Return the intersection of the boxes of two outlines over the area of the smaller box."""
    low, high = np.maximum(a.min(0), b.min(0)), np.minimum(a.max(0), b.max(0))
    return float(np.prod(np.clip(high - low, 0, None)) / min(np.prod(np.ptp(a, 0)), np.prod(np.ptp(b, 0))))


def _draw_balloon(draw: ImageDraw.ImageDraw, rng: np.random.Generator, outline: np.ndarray) -> None:
    """Draw a body with darker rim, knot, string and highlight; `outline` is in pixels."""
    color = rng.integers(30, 256, 3)
    color[rng.integers(3)] = 255  # balloons are bright
    center, radius = outline.mean(0), np.ptp(outline[:, 0]) / 2
    knot = outline[np.argmax(np.linalg.norm(outline - center, axis=1) * (outline[:, 1] > center[1]))]
    sway = rng.normal(0, 0.2, 3) * radius
    string = [(knot[0] + s * t, knot[1] + t * radius * 1.6) for t, s in zip((0, 0.4, 0.7, 1), (0, *sway), strict=True)]
    draw.line(string, fill=(70, 70, 70), width=SUPERSAMPLING // 2 + 1)
    draw.polygon([tuple(p) for p in outline], fill=tuple(int(c * 0.72) for c in color))
    draw.polygon([tuple(p) for p in (outline - center) * 0.9 + center - radius * 0.05], fill=tuple(map(int, color)))
    side = radius * 0.14
    draw.polygon([tuple(knot), (knot[0] - side, knot[1] + side * 1.5), (knot[0] + side, knot[1] + side * 1.5)],
                 fill=tuple(int(c * 0.72) for c in color))  # fmt: skip
    glint = center + np.array([-0.35, -0.45]) * radius
    draw.ellipse(
        [*(glint - radius * 0.16), *(glint + radius * 0.16)], fill=tuple(int(c + (255 - c) * 0.7) for c in color)
    )


def _draw_distractor(draw: ImageDraw.ImageDraw, rng: np.random.Generator, scale: int) -> None:
    """Draw a box, a kite or a bar, as bright as a balloon."""
    color = tuple(int(c) for c in rng.integers(30, 256, 3))
    x, y = rng.uniform(0.1, 0.9, 2) * scale
    w, h = rng.uniform(0.05, 0.16, 2) * scale
    kind = rng.integers(3)
    if kind == 0:
        draw.rectangle([x - w, y - h, x + w, y + h], fill=color)
    elif kind == 1:
        draw.polygon([(x, y - h), (x + w, y), (x, y + h * 1.4), (x - w, y)], fill=color)
    else:
        draw.line([(x - w, y - h), (x + w, y + h)], fill=color, width=max(1, int(scale * 0.02)))


def _via_entry(path: Path, outlines: list[np.ndarray]) -> dict:
    regions = {
        str(i): {
            "shape_attributes": {
                "name": "polygon",
                "all_points_x": outline[:, 0].round(1).tolist(),
                "all_points_y": outline[:, 1].round(1).tolist(),
            },
            "region_attributes": {},
        }
        for i, outline in enumerate(outlines)
    }
    return {"filename": path.name, "size": path.stat().st_size, "file_attributes": {}, "regions": regions}
