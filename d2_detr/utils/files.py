"""Reading and writing files: one clear message for bad input, no half-written file after a crash."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from d2_detr.utils.errors import InputError

_TEMPORARY = ".d2_detr"  # begins the name of a file that is being written
_DAY = 24 * 60 * 60


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
        return json.loads(bytes(text))
    finally:
        if was_enabled:
            gc.enable()


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
    a new one gets those that the umask allows. It is on the disk before it replaces the old one.

    Raises:
        OSError: the file cannot be written, such as on a full disk; the error names `path`.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{_TEMPORARY}_{_machine()}_{os.getpid()}_{secrets.token_hex(4)}.tmp")
    try:
        # Not tempfile, whose files are private to the user whatever the umask says.
        mode = target.stat().st_mode & 0o777 | 0o600 if target.exists() else 0o666
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
        yield temporary
        _flush_to_disk(temporary)
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except OSError as error:
        if error.errno is None or str(error.filename or temporary) != str(temporary):
            raise  # names another file, which was read
        raise OSError(error.errno, f"cannot be written: {error.strerror}", str(target)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Remove the temporary files in a folder that `atomic_write` could not remove because its process was killed.

    A file stays while its process runs. Whether that is so is known on the same machine only; a file of another machine
    is removed if nothing was written to it for a day.

    Returns:
        What was removed.
    """
    removed = []
    for path in Path(folder).glob(f"{_TEMPORARY}_*.tmp"):
        match = re.fullmatch(_TEMPORARY + r"_(\w+)_(\d+)_[0-9a-f]{8}\.tmp", path.name)
        with suppress(OSError):  # removed by another process, or not ours to remove
            if match and not path.is_symlink() and _is_leftover(path, match[1], int(match[2])):
                path.unlink()
                removed.append(path)
    return removed


def _is_leftover(path: Path, machine: str, pid: int) -> bool:
    if machine != _machine() or os.name != "posix":
        return time.time() - path.stat().st_mtime > _DAY
    try:
        os.kill(pid, 0)  # sends nothing
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # a process of another user
        pass
    return False


@cache
def _machine() -> str:
    """Return a short name of this machine, or of this container with process ids of its own."""
    try:
        process_ids = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        process_ids = ""
    return hashlib.sha256(f"{socket.gethostname()} {process_ids}".encode()).hexdigest()[:8]


def _flush_to_disk(path: Path) -> None:
    """Without this, a loss of power can leave an empty file under the new name."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
