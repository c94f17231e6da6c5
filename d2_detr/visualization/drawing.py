"""Draw masks, boxes and labels on images.

Shape shorthand: N objects in an image of H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageColor, ImageDraw
from scipy.ndimage import distance_transform_edt, minimum_filter

from d2_detr.structures.detections import Detections
from d2_detr.visualization.colors import text_color
from d2_detr.visualization.text import font_for, shorten

MASK_OPACITY = 0.45
MIN_FONT_SIZE = 11  # pixels


def draw_detections(
    image: Image.Image,
    detections: Detections,
    class_names: Sequence[str],
    colors: Mapping[str, str],
    *,
    named: bool = True,
) -> None:
    """Draw objects on an RGB image, those with higher scores on top.

    Args:
        detections: in pixels of the image; objects without a box are labeled inside their mask.
        class_names: of each class.
        colors: by class name.
        named: whether labels show the class name besides the score.
    """
    names = [class_names[label] for label in detections.classes]
    if detections.masks is not None and len(detections.masks):
        layer = mask_layer(detections.masks, [colors[name] for name in names])
        if extent := layer.getbbox():
            part = layer.crop(extent)
            image.paste(part, extent[:2], part)
    draw = ImageDraw.Draw(image)
    line_width = max(2, round(max(image.size) / 320))
    font_size = max(MIN_FONT_SIZE, round(max(image.size) / 64))
    labels = []
    scores = detections.scores
    for i in range(len(names)) if scores is None else np.argsort(scores, kind="stable"):
        text = " ".join([names[i]] * named + ([] if scores is None else [f"{scores[i]:.2f}"]))
        box = detections.boxes_xyxy[i]
        if np.isnan(box[0]):
            assert detections.masks is not None
            labels.append((text, colors[names[i]], _inner_point(detections.masks[i]), True))
        else:
            frame = _frame(box, line_width, image.size)
            draw.rectangle(frame, outline=colors[names[i]], width=line_width)
            labels.append((text, colors[names[i]], frame[:2], False))
    for text, color, position, is_centered in labels:  # above all boxes
        if text:
            _draw_label(draw, text, color, position, font_size, is_centered=is_centered)


def mask_layer(masks: np.ndarray, colors: Sequence[str]) -> Image.Image:
    """Paint masks (N, H, W), bool, into a transparent RGBA image, smaller ones on top, with white outlines."""
    height, width = masks.shape[1:]
    layer = np.zeros((height, width), np.uint32)  # RGBA in one number: several times faster than four
    outline = max(1, min(height, width) // 300)
    for i in np.argsort([-np.count_nonzero(mask) for mask in masks]):
        rows, columns = (masks[i].any(axis).nonzero()[0] for axis in (1, 0))
        if not len(rows):
            continue
        # With a margin, so that the mask ends inside the part, or else at an edge of the image, which has no outline.
        part = tuple(np.s_[max(0, line[0] - outline) : line[-1] + 1 + outline] for line in (rows, columns))
        mask, color = masks[i][part], (*ImageColor.getrgb(colors[i])[:3], round(255 * MASK_OPACITY))
        np.copyto(layer[part], np.array(color, np.uint8).view(np.uint32), where=mask)
        inner = minimum_filter(mask, size=2 * outline + 1, mode="constant", cval=1)
        np.copyto(layer[part], 0xFFFFFFFF, where=mask & ~inner)
    return Image.fromarray(layer.view(np.uint8).reshape(height, width, 4))


def resize_masks(masks: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """Resize masks (N, H, W), bool."""
    resized = [np.asarray(Image.fromarray(mask).resize(size_wh, Image.Resampling.NEAREST)) for mask in masks]
    return np.array(resized, bool).reshape(-1, *size_wh[::-1])


def resize_detections(detections: Detections, size_wh: tuple[int, int], new_size_wh: tuple[int, int]) -> Detections:
    """Scale objects with their image from one size to another."""
    factors = np.divide(new_size_wh, size_wh)
    masks = None if detections.masks is None else resize_masks(detections.masks, new_size_wh)
    return detections._replace(boxes_xyxy=detections.boxes_xyxy * np.tile(factors, 2), masks=masks)


def _frame(box_xyxy: np.ndarray, line_width: int, size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the corner pixels of a frame whose line is centered on the edges of a box, clipped to the image."""
    x0, y0, x1, y1 = (round(float(value)) for value in box_xyxy)
    left, top = max(0, x0 - line_width // 2), max(0, y0 - line_width // 2)
    right, bottom = (min(end + line_width // 2, side) - 1 for end, side in zip((x1, y1), size_wh, strict=True))
    return left, top, max(left, right), max(top, bottom)


def _draw_label(
    draw: ImageDraw.ImageDraw, text: str, color: str, position: tuple[int, int], font_size: int, *, is_centered: bool
) -> None:
    """Draw a label centered on a position, or above it (below it at the upper edge of the image)."""
    image_width, image_height = draw.im.size
    font = font_for(text, font_size)
    padding = font_size // 5
    text = shorten(text, font, image_width - 2 * padding)
    width, height = round(font.getlength(text)) + 2 * padding, sum(font.getmetrics()) + 2 * (padding // 2)
    x, y = position
    if is_centered:
        x, y = x - width // 2, y - height // 2
    elif y >= height:
        y -= height
    x, y = max(0, min(x, image_width - width)), max(0, min(y, image_height - height))
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=color)
    draw.text((x + padding, y + padding // 2), text, font=font, fill=text_color(color))


def _inner_point(mask: np.ndarray) -> tuple[int, int]:
    """Return x, y of a pixel of a mask (H, W) that is far from its outline and from the edges of the image."""
    step = max(1, max(mask.shape) // 256)
    distance = distance_transform_edt(np.pad(mask[::step, ::step], 1))[1:-1, 1:-1]
    y, x = np.unravel_index(distance.argmax(), distance.shape)
    return int(x) * step, int(y) * step
