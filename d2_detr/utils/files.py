"""Reading and writing files: one clear message for bad input, no half-written file after a crash."""

from __future__ import annotations

import gc
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from d2_detr.utils.errors import InputError


def read_json(path: str | Path) -> Any:
    """Parse a JSON file.

    Raises:
        FileNotFoundError: no such file.
        InputError: not JSON; the message has path, line and column.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: a folder, expected a JSON file with annotations")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return parse_json(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a complete JSON file ({error}); write or export it again") from error


def parse_json(text: bytes | memoryview) -> Any:
    """Parse JSON fast, and everything that Python's own parser accepts, such as NaN.

    Integers of more than 64 bits may become floating-point numbers.

    Raises:
        json.JSONDecodeError, UnicodeDecodeError: not JSON.
    """
    # Parsing makes millions of objects, all of them needed: the garbage collector would search them in vain.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _parse_slowly(bytes(text))
    finally:
        if was_enabled:
            gc.enable()


def _parse_slowly(text: bytes) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise json.JSONDecodeError("nested too deeply", "", 0) from error
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError as error:  # Python reads no integer of thousands of digits
        raise json.JSONDecodeError(str(error), "", 0) from error


def write_json(value: Any, path: str | Path, *, overwrite: bool = True) -> None:
    """Write a JSON file atomically.

    Raises:
        InputError: `path` is a folder, or with `overwrite=False` a file with other content. It stays as it is.
    """
    text = json.dumps(value)
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: a folder, expected the name of a file to write")
    if not overwrite and path.exists():
        if path.is_file() and path.read_bytes() == text.encode():
            return
        raise InputError(f"{path} exists with other content; remove it first, if it may be replaced")
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` when the block ends, and is removed if the block raises.

    If `path` is a symbolic link, its target is replaced. The file keeps the permissions of the one that it replaces;
    a new one gets those that the umask allows.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    # Not tempfile, whose files are private to the user whatever the umask says.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
