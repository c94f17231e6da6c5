"""Choose a few entries of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def sample_evenly(entries: Sequence[T], number: int) -> list[T]:
    """Return `number` entries at equal distances; all of them if there are fewer."""
    number = min(number, len(entries))
    return [entries[i * len(entries) // number] for i in range(number)]
