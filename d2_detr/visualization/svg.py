"""Figures of matplotlib as SVG that becomes a part of a page: in the page's colours of the day, in its font."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib
from matplotlib.figure import Figure

INK = "#010203"  # stands for the colour of text while matplotlib draws; nothing else has it
INK_KEYS = (
    "text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color",
)  # fmt: skip


@contextmanager
def page_style() -> Iterator[None]:
    """Figures that are made in it can be given to `svg`."""
    style = dict.fromkeys(INK_KEYS, INK) | {
        "axes.facecolor": "none", "figure.facecolor": "none", "legend.facecolor": "none", "legend.edgecolor": "none",
        "svg.fonttype": "none", "svg.hashsalt": "d2_detr", "font.family": "sans-serif",
    }  # fmt: skip
    with matplotlib.rc_context(style):
        yield


def svg(figure: Figure, label: str) -> str:
    """The <svg> element of a figure, as wide as the page lets it be; `label` is read out in its place."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    element = text[text.index("<svg") :].replace(INK, "currentColor").replace("DejaVu Sans", "system-ui")
    return element.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
