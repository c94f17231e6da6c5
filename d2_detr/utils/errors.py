"""Mistakes of the person at the keyboard, told apart from mistakes in the code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Something that was given is wrong: a file, a field, a config key. The message says which, and the remedy."""


@contextmanager
def error_context(what: object) -> Iterator[None]:
    """Put the name of a file in front of the message of an InputError."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{what}: {error}") from error


def in_traceback(text: str) -> str | None:
    """Message of the InputError at the end of a traceback, as another process sends it; None if it ends otherwise."""
    _, name, message = text.rpartition(f"{InputError.__module__}.{InputError.__qualname__}: ")
    return message.strip() if name else None


@contextmanager
def one_clear_message() -> Iterator[None]:
    """For the tools: end with the message of an InputError or OSError and exit status 1, without a traceback, and so
    where somebody interrupts, with the status that shells expect."""
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except (InputError, OSError) as error:
        sys.exit(f"error: {in_traceback(str(error)) or error}")
