"""Download a file over HTTP once, with timeout, resume, hash check and progress bar."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from iopath.common.file_io import file_lock
from tqdm import tqdm

from d2_detr.utils.errors import InputError, one_line

logger = logging.getLogger(__name__)
CHUNK = 1 << 20
SCHEMES = ("http", "https")
MAX_BYTES = 20 << 30  # of a download; a checkpoint of DETR has 160 to 500 MB


def cache_folder() -> Path:
    """Return the folder for downloads: D2_DETR_CACHE, or ~/.cache/d2_detr."""
    return Path(os.environ.get("D2_DETR_CACHE", "~/.cache/d2_detr")).expanduser()


def download(
    url: str,
    path: Path,
    *,
    sha256_prefix: str = "",
    check: Callable[[Path], object] | None = None,
    timeout: float = 30.0,
) -> Path:
    """Download `url` to `path` unless the file exists; of several processes that ask, one does it.

    A partial download is kept as `path`.part and continued by the next call, if it is certain that the server still has
    the same file. The file appears at `path` only when it is complete and verified.

    Args:
        url: http or https address.
        path: file to write.
        sha256_prefix: leading hexadecimal digits of the expected SHA-256; "" accepts any file.
        check: raises an InputError if a complete file is not what is expected.
        timeout: seconds without a response or without data after which the download fails.

    Raises:
        ConnectionError: the address could not be reached, or the connection broke off.
        InputError: an invalid address, or a wrong file, which is removed.
    """
    if path.is_file():
        return path
    _check_address(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(str(path)):
        if not path.is_file():
            _download(url, path, sha256_prefix, check, timeout)
    return path


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_complete = bool(parts.hostname) and parts.port != 0
    except ValueError as error:  # brackets that are not of an IPv6 address, or a port that is not a number
        raise InputError(f"{url}: not an address ({error})") from error
    if parts.scheme not in SCHEMES or not is_complete:
        raise InputError(f"{url}: not an address; expected https://HOST/FILE")
    if not re.fullmatch("[!-~]+", url):
        raise InputError(f"{url}: has a space or a character beyond ASCII; write it as the browser copies it (%20)")


def _download(url: str, path: Path, sha256_prefix: str, check: Callable[[Path], object] | None, timeout: float) -> None:
    part = PartialFile(path)
    try:
        _fetch(url, part, timeout, is_verified=bool(sha256_prefix))
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: redirected to no address
        if str(getattr(error, "filename", None)) == str(part.path):
            raise  # the disk is full, for instance
        reason = one_line(getattr(error, "reason", None) or error)
        raise ConnectionError(
            f"cannot download {url}: {reason}. Check the connection and try again (the partial download is kept), or "
            f"put the file at {path} yourself."
        ) from error
    try:
        digest = file_sha256(part.path)
        if not digest.startswith(sha256_prefix):
            raise InputError(f"SHA-256 is {digest}, expected {sha256_prefix}...")
        if check:
            check(part.path)
    except InputError as error:
        part.remove()
        raise InputError(f"{url}: {error}; the file was removed, try again") from error
    os.replace(part.path, path)
    part.remove()


def _fetch(url: str, part: PartialFile, timeout: float, *, is_verified: bool) -> None:
    """Download to a partial file.

    Args:
        is_verified: a file that was put together from two different ones will be noticed.
    """
    headers = part.resume_headers(is_verified=is_verified)
    start = part.size if headers else 0
    logger.info("Downloading %s%s", url, f", continued at {start} bytes" if start else "")
    try:
        response = urllib.request.build_opener(_Redirects).open(
            urllib.request.Request(url, headers=headers), timeout=timeout
        )
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise
        if error.headers.get("Content-Range", "").rpartition("/")[2] == str(start):
            return  # it was complete
        part.remove()  # longer than the file itself, or of unknown length
        return _fetch(url, part, timeout, is_verified=is_verified)
    with response:
        if response.status == http.HTTPStatus.OK:
            start = 0
            part.begin(response.headers)
        elif not start:
            raise ConnectionError(f"the server answered with status {response.status}")
        elif not part.is_continued_by(response.headers):
            part.remove()
            return _fetch(url, part, timeout, is_verified=is_verified)
        _receive(response, part.path, start)


def _receive(response: http.client.HTTPResponse, path: Path, start: int) -> None:
    for header, known in (("Transfer-Encoding", ("identity", "chunked")), ("Content-Encoding", ("identity", ""))):
        if (encoding := response.headers.get(header, "identity").lower()) not in known:
            raise ConnectionError(f"the server sent {header} {encoding!r:.40}, which was not asked for")
    length = response.headers.get("Content-Length")
    if length is not None and not re.fullmatch(r"\d{1,15}", length.strip()):
        raise ConnectionError(f"the server sent Content-Length {length!r:.40}, expected a number")
    expected = start + int(length) if length else None
    if (expected or 0) > MAX_BYTES:
        raise ConnectionError(f"the file has {expected} bytes, expected at most {MAX_BYTES}")
    received = start
    bar = tqdm(desc=path.stem, total=expected, initial=start, unit="B", unit_scale=True)
    with path.open("ab" if start else "wb") as file, bar:
        while chunk := response.read1(CHUNK):  # read() would lose what arrived before the connection broke off
            received += len(chunk)
            if received > MAX_BYTES:
                raise ConnectionError(f"the server sent more than {MAX_BYTES} bytes")
            try:
                file.write(chunk)
                file.flush()
            except OSError as error:
                raise OSError(error.errno, f"cannot be written: {error.strerror}", str(path)) from error
            bar.update(len(chunk))
    if expected is not None and received != expected:
        raise ConnectionError(f"the connection was closed after {received} of {expected} bytes")


class PartialFile:
    """A download that is not complete, and what identifies the version of the file on the server."""

    def __init__(self, path: Path):
        self.path = path.with_name(path.name + ".part")
        self._version_file = path.with_name(path.name + ".part.version")

    @property
    def size(self) -> int:
        """Number of bytes that were received."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def resume_headers(self, *, is_verified: bool) -> dict[str, str]:
        """Return the headers that ask for the rest, or for all if the server has another version; {} to start over."""
        version = self._read_version()
        if not self.size or not (version or is_verified):
            return {}
        return {"Range": f"bytes={self.size}-"} | ({"If-Range": version} if version else {})

    def is_continued_by(self, headers: Message) -> bool:
        """Return whether a response is the rest of this file: it begins at its end, and is of the same version."""
        first = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
        versions = {self._read_version(), _version(headers)} - {""}
        return first is not None and int(first[1]) == self.size and len(versions) <= 1

    def begin(self, headers: Message) -> None:
        """Remember the version of the file whose first bytes will be received."""
        self._version_file.write_text(_version(headers), encoding="utf-8")

    def _read_version(self) -> str:
        text = self._version_file.read_text(encoding="utf-8", errors="replace") if self._version_file.is_file() else ""
        return text if re.fullmatch("[ -~]*", text) else ""

    def remove(self) -> None:
        """Remove the file, if it is there, and its version."""
        self.path.unlink(missing_ok=True)
        self._version_file.unlink(missing_ok=True)


def _version(headers: Message) -> str:
    """Return what identifies the version of a file for If-Range, which a weak tag does not; "" for nothing."""
    tag = headers.get("ETag", "")
    return headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but from https only to https."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """See the base class."""
        if urlsplit(newurl).scheme not in SCHEMES or (req.type == "https" and not newurl.startswith("https:")):
            raise ConnectionError(f"the server redirects to {newurl}, which is not safe")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
