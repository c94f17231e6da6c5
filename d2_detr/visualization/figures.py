"""Figures of matplotlib as files and as parts of a page."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from d2_detr.utils.errors import InputError
from d2_detr.utils.files import atomic_write
from d2_detr.visualization.colors import PALETTE

INK = "#010203"  # placeholder for the text color of the page; no other color is equal to it
INK_KEYS = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color")
PALETTE_STYLE: dict[Any, Any] = {"axes.prop_cycle": cycler(color=PALETTE)}
PAGE_STYLE: dict[Any, Any] = PALETTE_STYLE | dict.fromkeys(INK_KEYS, INK) | {
    "axes.facecolor": "none", "figure.facecolor": "none", "legend.facecolor": "none", "legend.edgecolor": "none",
    "svg.fonttype": "none", "svg.hashsalt": "d2_detr",
}  # fmt: skip


def file_style() -> AbstractContextManager[None]:
    """Return the context in which figures for `save_png` are drawn."""
    return matplotlib.rc_context(PALETTE_STYLE)


def page_style() -> AbstractContextManager[None]:
    """Return the context in which figures for `svg` are drawn."""
    return matplotlib.rc_context(PAGE_STYLE)


def style_axes(
    axes: Axes, title: str, x_label: str, y_label: str = "", *, x_max: float | None = None, y_max: float
) -> None:
    """Set the title, the labels, a grid, and limits from 0; without `x_max` the upper limit of x is kept."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x_label, fontsize=9)
    axes.set_ylabel(y_label, fontsize=9)
    axes.set_xlim(0, x_max)
    axes.set_ylim(0, y_max)
    axes.grid(alpha=0.3)


def save_png(figure: Figure, path: Path, *, dpi: int = 100) -> None:
    """Write a figure to a PNG file."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)


def svg(figure: Figure, label: str) -> str:
    """Return the <svg> element of a figure, with the font and the text color of the page around it.

    Args:
        label: description for screen readers.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    element = text[text.index("<svg") :].replace(INK, "currentColor")
    return element.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)


def show_in_windows(paths: Sequence[Path]) -> None:
    """Open each image in a window, and return when all are closed.

    Raises:
        InputError: no window can be opened.
    """
    from matplotlib import pyplot  # looks for a screen

    if pyplot.get_backend().lower() == "agg":  # the fallback
        names = ", ".join(map(str, paths))
        raise InputError(f"no window can be opened: there is no screen, or no toolkit such as tkinter; see {names}")
    for path in paths:
        figure = pyplot.figure(path.name, layout="constrained")
        axes = figure.subplots()
        axes.set_axis_off()
        axes.imshow(pyplot.imread(path))
    pyplot.show()


def literal(text: str) -> str:
    """Escape a name that matplotlib would interpret.

    It would typeset text between two $ as a formula, leave a name that begins with _ out of a legend, and fail at
    characters without a glyph, such as those of a file name that is not UTF-8.
    """
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return f"{' ' * text.startswith('_')}{printable}".replace("$", r"\$")
