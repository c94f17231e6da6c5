"""Mistakes of the person at the keyboard, told apart from mistakes in the code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Something that was given is wrong: a file, a field, a config key. The message says which, and the remedy."""


@contextmanager
def one_clear_message() -> Iterator[None]:
    """For the tools: end with the message of an InputError or OSError and exit status 1, without a traceback."""
    try:
        yield
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
