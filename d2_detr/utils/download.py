"""Download a file over HTTP once, with timeout, resume, hash check and progress bar."""

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
    """Return the folder for downloads: D2_DETR_CACHE, or ~/.cache/d2_detr."""
    return Path(os.environ.get("D2_DETR_CACHE", "~/.cache/d2_detr")).expanduser()


def download(url: str, path: Path, *, sha256_prefix: str = "", timeout: float = 30.0) -> Path:
    """Download `url` to `path` unless the file exists; of several processes that ask, one does it.

    A partial download is kept as `path`.part and continued by the next call. The file appears at `path` only when it is
    complete and its SHA-256 starts with `sha256_prefix`.

    Args:
        url: http or https address.
        path: file to write.
        sha256_prefix: leading hexadecimal digits of the expected SHA-256; "" accepts any file.
        timeout: seconds without a response or without data after which the download fails.

    Raises:
        ConnectionError: the address could not be reached, or the connection broke off.
        InputError: the file has another hash; the partial file is removed.
    """
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(str(path)):
        if not path.is_file():
            _download(url, path, sha256_prefix, timeout)
    return path


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _download(url: str, path: Path, sha256_prefix: str, timeout: float) -> None:
    part = path.with_name(path.name + ".part")
    try:
        _fetch(url, part, timeout)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise ConnectionError(
            f"cannot download {url}: {reason}. Check the connection and try again (the partial download is kept), or "
            f"put the file at {path} yourself."
        ) from error
    digest = file_sha256(part)
    if not digest.startswith(sha256_prefix):
        part.unlink()
        raise InputError(f"{url}: SHA-256 is {digest}, expected {sha256_prefix}...; the file was removed, try again")
    os.replace(part, path)


def _fetch(url: str, part: Path, timeout: float) -> None:
    size = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={size}-"} if size else {})
    logger.info("Downloading %s%s", url, f", continued at {size} bytes" if size else "")
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not size:
            raise
        total = error.headers.get("Content-Range", "").rpartition("/")[2]
        if total != str(size):  # longer than the file itself, or of unknown length
            part.unlink()
            _fetch(url, part, timeout)
        return
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        start = size if resumed else 0
        length = response.headers.get("Content-Length")
        expected = start + int(length) if length else None
        bar = tqdm(desc=part.stem, total=expected, initial=start, unit="B", unit_scale=True)
        with part.open("ab" if resumed else "wb") as file, bar:
            while chunk := response.read1(CHUNK):  # read() would lose what arrived before the connection broke off
                file.write(chunk)
                bar.update(len(chunk))
    if expected is not None and part.stat().st_size < expected:
        raise ConnectionError(f"the connection was closed after {part.stat().st_size} of {expected} bytes")
