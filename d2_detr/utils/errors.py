"""Errors that the user can fix, as opposed to errors in the code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """An input is wrong: a file, a field, an option or a config key. The message names it and says what to do."""


class Interrupted(KeyboardInterrupt):
    """A signal has ended a run, after what it did was saved."""

    def __init__(self, signal: int):
        """Create the exception; `signal` is the number of the signal."""
        super().__init__(signal)
        self.signal = signal


def one_line(error: object, limit: int = 300) -> str:
    """Return the message of another library's error as a part of ours: one line, shortened, of printable characters."""
    text = " ".join(str(error).split())
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= limit else f"{text[:limit]}..."


@contextmanager
def error_context(where: object) -> Iterator[None]:
    """Prefix the message of an InputError with a place, such as the name of a file."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
