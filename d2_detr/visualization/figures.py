"""Figures of matplotlib as files, and as parts of a page."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure

from d2_detr.utils.errors import InputError
from d2_detr.utils.files import atomic_write

INK = "#010203"  # stands for the colour of the page's text while matplotlib draws; nothing else has it
# Of lines, to be seen on a light page and on a dark one.
LINE_COLOURS = (
    "#3b8eea",
    "#f28e2b",
    "#23a777",
    "#e4575c",
    "#9d7ad6",
    "#b5852f",
    "#e377c2",
    "#8a939e",
    "#a3a52a",
    "#17a9bc",
)
INK_KEYS = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color")


def save_png(figure: Figure, path: Path, *, dpi: int = 100) -> None:
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)


def show_in_windows(paths: Sequence[Path]) -> None:
    """Open each image in a window, and return when they are closed.

    Raises:
        InputError: no window can be opened here.
    """
    from matplotlib import pyplot  # looks for a screen

    if pyplot.get_backend().lower() == "agg":  # what it falls back to
        names = ", ".join(map(str, paths))
        raise InputError(f"no window can be opened: there is no screen, or no toolkit such as tkinter; see {names}")
    for path in paths:
        figure = pyplot.figure(path.name, layout="constrained")
        axes = figure.subplots()
        axes.set_axis_off()
        axes.imshow(pyplot.imread(path))
    pyplot.show()


def literal(text: str) -> str:
    """A name of somebody's as it is: matplotlib would typeset what stands between two $ as a formula, and keep a name
    that begins with _ out of a legend."""
    return f"{' ' * text.startswith('_')}{text}".replace("$", r"\$")


@contextmanager
def page_style() -> Iterator[None]:
    """Figures that are drawn in it are made for `svg`."""
    style = dict.fromkeys(INK_KEYS, INK) | {
        "axes.facecolor": "none", "figure.facecolor": "none", "legend.facecolor": "none", "legend.edgecolor": "none",
        "svg.fonttype": "none", "svg.hashsalt": "d2_detr", "axes.prop_cycle": cycler(color=LINE_COLOURS),
    }  # fmt: skip
    with matplotlib.rc_context(style):
        yield


def svg(figure: Figure, label: str) -> str:
    """The <svg> element of a figure: text in the font and the colour of the page around it, dark or light.

    Args:
        label: read out in place of the figure.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    element = text[text.index("<svg") :].replace(INK, "currentColor")
    return element.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
