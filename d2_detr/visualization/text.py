"""Fonts and lines of text for Pillow."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans or, if it lacks a character of the text, an installed font that has all of them.

    Args:
        size: in pixels.
    """
    return _load(_font_file(frozenset(text)), size)


def shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Replace the middle of a text by an ellipsis so that it is at most `width` pixels wide."""
    shortened, kept = text, len(text)
    while kept > 1 and font.getlength(shortened) > width:
        kept -= 1
        shortened = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return shortened


@cache
def _font_file(characters: frozenset[str]) -> str:
    default = _dejavu_sans()
    if _has_glyphs(default, characters):
        return default
    from matplotlib.font_manager import findSystemFonts  # slow to import

    installed = sorted(findSystemFonts(), key=lambda path: ("Regular" not in path, path))
    return next((path for path in installed if _has_glyphs(path, characters)), default)


def _dejavu_sans() -> str:
    """Return the path of the font that ships with matplotlib, which is not imported for it."""
    spec = find_spec("matplotlib")
    assert spec and spec.submodule_search_locations
    return str(Path(spec.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf")


def _has_glyphs(path: str, characters: frozenset[str]) -> bool:
    try:
        font = _load(path, 16)
        missing = bytes(font.getmask("\U0010ffff"))  # no character, so no font has it
        return all(bytes(font.getmask(character)) != missing for character in characters if not character.isspace())
    except OSError:  # bitmap fonts of other sizes, damaged files
        return False


@cache
def _load(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
