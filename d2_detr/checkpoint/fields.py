"""Fields of the metadata in a checkpoint, which anyone may have written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from d2_detr.utils.errors import InputError

T = TypeVar("T", bool, int, float, str, dict, list)

MAX_NUMBER = 10_000  # of attention heads, and of pixels along an edge
_KINDS = {bool: "true or false", str: "text", dict: "names with values", list: "a list", float: "a number from 0 to 1"}


def read_field(content: Mapping[Any, Any], name: str, kind: type[T], *, where: str = "", lowest: int = 0) -> T | None:
    """Return a value of a dictionary; None if it is missing or None.

    Args:
        kind: its type; `int` is a number from `lowest` to MAX_NUMBER, `float` a share.
        where: the dictionary, for the message.

    Raises:
        InputError: another type, or a number out of range.
    """
    value = content.get(name)
    if value is None:
        return None
    is_number = type(value) is kind or (kind is float and type(value) is int)
    if kind is int and is_number and lowest <= value <= MAX_NUMBER:
        return value
    if kind is float and is_number and 0 <= value <= 1:
        return kind(value)
    if kind not in (int, float) and isinstance(value, kind):
        return value
    expected = f"a whole number from {lowest} to {MAX_NUMBER}" if kind is int else _KINDS[kind]
    raise InputError(f"{where}{name}: expected {expected}, got {shown(value)}")


def shown(value: object) -> str:
    """Return a value for a message, shortened if it is long."""
    text = ascii(value) if isinstance(value, str | bool | int | float) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:60]}..."
