"""Fetch a file over HTTP once: with timeout, resume, hash check and progress."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import urllib.error
import urllib.request
from pathlib import Path

from iopath.common.file_io import file_lock
from tqdm import tqdm

from d2_detr.utils.errors import InputError

logger = logging.getLogger(__name__)
CHUNK = 1 << 20


def cache_folder() -> Path:
    """Where downloads are kept: D2_DETR_CACHE, else ~/.cache/d2_detr."""
    return Path(os.environ.get("D2_DETR_CACHE", "~/.cache/d2_detr")).expanduser()


def download(url: str, path: Path, *, sha256_prefix: str = "", timeout: float = 30.0) -> Path:
    """Fetch `url` into `path` unless it is there already; of several processes that ask, one does.

    What arrived before an interruption is kept as `path`.part and continued at the next call. The file appears at
    `path` only when it is complete and its SHA-256 starts with `sha256_prefix`.

    Args:
        timeout: seconds without an answer or without data after which the download is given up.

    Raises:
        ConnectionError: the address could not be reached or broke off; the message says what to do.
        InputError: the file has another hash; the partial file is removed.
    """
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(str(path)):
        if not path.is_file():
            _download(url, path, sha256_prefix, timeout)
    return path


def _download(url: str, path: Path, sha256_prefix: str, timeout: float) -> None:
    part = path.with_name(path.name + ".part")
    try:
        _fetch(url, part, timeout)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise ConnectionError(
            f"cannot download {url}: {reason}. Check the connection and try again (what arrived is kept), or put the "
            f"file at {path} yourself."
        ) from error
    digest = file_sha256(part)
    if not digest.startswith(sha256_prefix):
        part.unlink()
        raise InputError(f"{url}: SHA-256 is {digest}, expected {sha256_prefix}...; the file was not kept, try again")
    os.replace(part, path)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _fetch(url: str, part: Path, timeout: float) -> None:
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    logger.info("Downloading %s%s", url, f", continued at {have} bytes" if have else "")
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # the partial file is longer than the whole
            part.unlink()
            return _fetch(url, part, timeout)
        raise
    with response:
        resumed = response.status == 206
        length = response.headers.get("Content-Length")
        total = int(length) + (have if resumed else 0) if length else None
        bar = tqdm(desc=part.stem, total=total, initial=have if resumed else 0, unit="B", unit_scale=True)
        with part.open("ab" if resumed else "wb") as file, bar:
            while chunk := response.read1(CHUNK):  # what read(CHUNK) had so far would be lost with the connection
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and part.stat().st_size < total:
        raise ConnectionError(f"the connection broke off after {part.stat().st_size} of {total} bytes")
