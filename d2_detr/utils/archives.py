"""Zip archives from others, checked before anything is read from them."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from d2_detr.utils.errors import InputError

MAX_MEMBERS = 100_000
_ENCRYPTED = 1  # bit of a member's flags
_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}


@contextmanager
def open_zip(path: Path, *, max_bytes: int, methods: Collection[int] = tuple(_METHODS)) -> Iterator[zipfile.ZipFile]:
    """Open an archive whose members can be read within limits.

    Args:
        max_bytes: limit on the size of all members together, when they are unpacked.
        methods: of compression that are accepted.

    Raises:
        InputError: not a complete archive, also if that only shows in the block; encrypted, compressed by another
            method, or too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive.infolist(), max_bytes, methods)
            yield archive
    except InputError:
        raise
    except (
        zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError,
        struct.error,
    ) as error:  # fmt: skip
        raise InputError(f"not a complete zip file ({error})") from error


def _check_members(members: Collection[zipfile.ZipInfo], max_bytes: int, methods: Collection[int]) -> None:
    if len(members) > MAX_MEMBERS:
        raise InputError(f"{len(members)} files in the archive, expected at most {MAX_MEMBERS}")
    for member in members:
        if member.flag_bits & _ENCRYPTED:
            raise InputError(f"{member.filename} in the archive is encrypted")
        if member.compress_type not in methods:
            names = " or ".join(_METHODS[method] for method in methods)
            raise InputError(f"{member.filename} in the archive is not {names}, but compressed by another method")
    if (size := sum(member.file_size for member in members)) > max_bytes:
        raise InputError(f"the archive unpacks to {size:,} bytes, expected at most {max_bytes:,}")
