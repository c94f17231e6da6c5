"""Drawn balloons: a detection problem that a small model learns from nothing in minutes, without a download.

Annotations are written as VIA 1.x, as those of the real balloon dataset, so that both take the same way.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from tqdm import tqdm

from d2_detr.utils.files import write_json

SUPERSAMPLING = 3  # drawn this much larger and scaled down, for smooth edges
MOST_OVERLAP = 0.35  # of the smaller of two boxes, so that no balloon hides another


def draw_dataset(folder: Path, num_pictures: int, *, size: int = 128, seed: int = 0) -> None:
    """Write `num_pictures` JPEG pictures of `size` x `size` pixels and their via_region_data.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    via = {}
    for number in tqdm(range(num_pictures), desc=f"Drawing {folder}", unit=" pictures"):
        path = folder / f"balloons_{number:05}.jpg"
        picture, polygons = draw_picture(rng, size)
        picture.save(path, quality=92)
        via[f"{path.name}{path.stat().st_size}"] = _via_entry(path, polygons)
    write_json(via, folder / "via_region_data.json")


def draw_picture(rng: np.random.Generator, size: int = 128) -> tuple[Image.Image, list[np.ndarray]]:
    """One picture of 1 to 4 balloons among things that are none, and the outline (N, 2) of each in pixels (x, y)."""
    scale = size * SUPERSAMPLING
    picture = _sky(rng, scale)
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.integers(0, 4)):
        _draw_distractor(draw, rng, scale)
    outlines: list[np.ndarray] = []
    for _ in range(rng.integers(1, 5)):
        outline = _place(rng, outlines)
        if outline is not None:
            _draw_balloon(draw, rng, outline * scale)
            outlines.append(outline)
    picture = picture.resize((size, size), Image.Resampling.BOX)
    noise = rng.normal(0, rng.uniform(0, 10), (size, size, 3))
    picture = Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))
    return picture, [outline * size for outline in outlines]


def _sky(rng: np.random.Generator, scale: int) -> Image.Image:
    """A smooth backdrop of a few random colours."""
    colours = rng.integers(40, 230, (3, 3, 3)).astype(np.uint8)
    backdrop = Image.fromarray(colours).resize((scale, scale), Image.Resampling.BICUBIC)
    return backdrop.filter(ImageFilter.GaussianBlur(scale / 40))


def _place(rng: np.random.Generator, others: list[np.ndarray]) -> np.ndarray | None:
    """Outline of a balloon in units of the picture, inside it and clear of the others; None if there is no room."""
    for _ in range(20):
        outline = _outline(rng)
        if outline.min() >= 0 and outline.max() <= 1 and all(_overlap(outline, o) <= MOST_OVERLAP for o in others):
            return outline
    return None


def _outline(rng: np.random.Generator, points: int = 36) -> np.ndarray:
    """An egg that tapers towards its knot, tilted a little."""
    radius = rng.uniform(0.06, 0.2)
    tall = rng.uniform(1.05, 1.35)
    angle = np.linspace(0, 2 * math.pi, points, endpoint=False)
    taper = 1 - 0.22 * np.clip(np.sin(angle), 0, 1) ** 2  # y points down: the lower half is the narrow one
    egg = np.stack([np.cos(angle) * taper, np.sin(angle) * tall], 1) * radius
    tilt = rng.normal(0, 0.25)
    rotation = np.array([[math.cos(tilt), math.sin(tilt)], [-math.sin(tilt), math.cos(tilt)]])
    return egg @ rotation + rng.uniform(radius, 1 - radius, 2)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection of the boxes of two outlines over the smaller of the boxes."""
    low, high = np.maximum(a.min(0), b.min(0)), np.minimum(a.max(0), b.max(0))
    return float(np.prod(np.clip(high - low, 0, None)) / min(np.prod(np.ptp(a, 0)), np.prod(np.ptp(b, 0))))


def _draw_balloon(draw: ImageDraw.ImageDraw, rng: np.random.Generator, outline: np.ndarray) -> None:
    """Body with darker rim, knot, string and highlight; `outline` in pixels."""
    colour = rng.integers(30, 256, 3)
    colour[rng.integers(3)] = 255  # balloons are bright
    centre, radius = outline.mean(0), np.ptp(outline[:, 0]) / 2
    knot = outline[np.argmax(np.linalg.norm(outline - centre, axis=1) * (outline[:, 1] > centre[1]))]
    sway = rng.normal(0, 0.2, 3) * radius
    string = [(knot[0] + s * t, knot[1] + t * radius * 1.6) for t, s in zip((0, 0.4, 0.7, 1), (0, *sway), strict=True)]
    draw.line(string, fill=(70, 70, 70), width=SUPERSAMPLING // 2 + 1)
    draw.polygon([tuple(p) for p in outline], fill=tuple(int(c * 0.72) for c in colour))
    draw.polygon([tuple(p) for p in (outline - centre) * 0.9 + centre - radius * 0.05], fill=tuple(map(int, colour)))
    side = radius * 0.14
    draw.polygon([tuple(knot), (knot[0] - side, knot[1] + side * 1.5), (knot[0] + side, knot[1] + side * 1.5)],
                 fill=tuple(int(c * 0.72) for c in colour))  # fmt: skip
    glint = centre + np.array([-0.35, -0.45]) * radius
    draw.ellipse(
        [*(glint - radius * 0.16), *(glint + radius * 0.16)], fill=tuple(int(c + (255 - c) * 0.7) for c in colour)
    )


def _draw_distractor(draw: ImageDraw.ImageDraw, rng: np.random.Generator, scale: int) -> None:
    """A box, a kite or a bar: as bright as a balloon, but no balloon."""
    colour = tuple(int(c) for c in rng.integers(30, 256, 3))
    x, y = rng.uniform(0.1, 0.9, 2) * scale
    w, h = rng.uniform(0.05, 0.16, 2) * scale
    kind = rng.integers(3)
    if kind == 0:
        draw.rectangle([x - w, y - h, x + w, y + h], fill=colour)
    elif kind == 1:
        draw.polygon([(x, y - h), (x + w, y), (x, y + h * 1.4), (x - w, y)], fill=colour)
    else:
        draw.line([(x - w, y - h), (x + w, y + h)], fill=colour, width=max(1, int(scale * 0.02)))


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
