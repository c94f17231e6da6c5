"""Reading and writing files so that a mistake has one clear message and a crash leaves no half file."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from d2_detr.utils.errors import InputError


def read_json(path: str | Path) -> Any:
    """Content of a JSON file.

    Raises:
        FileNotFoundError, InputError: with the path and, for broken JSON, line and column.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: a folder, expected the JSON file with the annotations")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a complete JSON file ({error}); write or export it again") from error


def write_json(value: Any, path: str | Path, *, overwrite: bool = True) -> None:
    """Write a JSON file; a reader sees the old one or the new one.

    Raises:
        InputError: a folder is there, or with `overwrite` False a file of other content. It is left as it is.
    """
    text = json.dumps(value)
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: a folder, expected the name of a file to write")
    if not overwrite and path.exists():
        if path.is_file() and path.read_bytes() == text.encode():
            return
        raise InputError(f"{path} is there already, with other content; remove it first if it may be replaced")
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends, and vanishes when it raises."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
