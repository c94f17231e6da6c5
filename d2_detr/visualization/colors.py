"""The colors of drawings, figures and the report."""

from __future__ import annotations

from collections.abc import Iterable

from PIL import ImageColor

from d2_detr.evaluation.matching import Outcome

BLUE, ORANGE, GREEN, PINK, VIOLET = "#4f9ff8", "#b0560a", "#128668", "#fb5088", "#8a4ae8"
GOLD, MINT, MAGENTA, NAVY, GRAY = "#cfa80c", "#45c9a5", "#a8327e", "#2f6f9f", "#98a0aa"
# Of lines and classes. Contrast to a white page is at least 2, to a dark one 2.6; to people without red or green cones
# any two differ by at least 8 (CIEDE2000), and those of the error types by 15.
PALETTE = (BLUE, PINK, GREEN, GOLD, VIOLET, ORANGE, MINT, MAGENTA, NAVY, GRAY)
OUTCOME_COLORS = {
    Outcome.TRUE_POSITIVE: GREEN, Outcome.MISSED: GOLD, Outcome.BACKGROUND: PINK, Outcome.LOCALIZATION: BLUE,
    Outcome.DUPLICATE: VIOLET, Outcome.CLASSIFICATION: ORANGE, Outcome.CROWD: GRAY,
}  # fmt: skip


def class_colors(class_names: Iterable[str]) -> dict[str, str]:
    """Assign a color of the palette to each distinct name."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(dict.fromkeys(class_names))}


def text_color(background: str) -> str:
    """Return the color of text on a background, black or white."""
    red, green, blue = ((value / 255) ** 2.2 for value in ImageColor.getrgb(background)[:3])
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.2 else "white"
