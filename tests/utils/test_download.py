"""Downloads from a local server that simulates faults of real ones."""

import hashlib
import socket
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from functools import partial

import pytest

from d2_detr.utils.download import _Redirects, cache_folder, download, file_sha256
from d2_detr.utils.errors import InputError
from tests.utils.loopback import serve

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2


@pytest.fixture
def server():
    with serve(CONTENT) as server:
        yield server


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "folder" / "file.bin"


@pytest.fixture
def half_downloaded(path):
    part = path.with_name("file.bin.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:HALF])
    return part


def part_of(path):
    return path.with_name(path.name + ".part")


@pytest.mark.parametrize("chunked", [False, True], ids=["length_known", "length_unknown"])
def test_a_download_has_the_served_bytes_and_leaves_no_part(server, path, chunked):
    server.chunked = chunked
    assert download(server.url(), path, sha256_prefix=SHA256[:8]) == path
    assert path.read_bytes() == CONTENT and not part_of(path).exists()
    assert server.requests == [None]


def test_an_existing_file_is_not_requested(server, path):
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    assert download(server.url(), path, sha256_prefix=SHA256).read_bytes() == b"mine"
    assert server.requests == []


def test_concurrent_callers_request_the_file_once(server, path):
    server.pause = 0.1  # time for all requests to arrive
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: download(server.url(), path).read_bytes(), range(4)))
    assert results == [CONTENT] * 4 and server.requests == [None]


def test_a_part_is_continued_where_it_ends(server, path, half_downloaded):
    download(server.url(), path, sha256_prefix=SHA256)
    assert server.requests == [f"bytes={HALF}-"]
    assert path.read_bytes() == CONTENT and not half_downloaded.exists()


def test_a_complete_part_is_only_renamed(server, path, half_downloaded):
    half_downloaded.write_bytes(CONTENT)
    download(server.url(), path, sha256_prefix=SHA256)
    assert server.requests == [f"bytes={len(CONTENT)}-"], "the file is not fetched again"
    assert path.read_bytes() == CONTENT and not half_downloaded.exists()


@pytest.mark.parametrize("sends_length", [True, False])
def test_a_part_that_is_too_long_is_fetched_again(server, path, half_downloaded, sends_length):
    server.sends_length = sends_length
    half_downloaded.write_bytes(CONTENT + b"more")
    download(server.url(), path, sha256_prefix=SHA256)
    assert server.requests == [f"bytes={len(CONTENT) + 4}-", None] and path.read_bytes() == CONTENT


def test_without_range_support_a_part_is_discarded(server, path, half_downloaded):
    server.ranges = False
    half_downloaded.write_bytes(b"x" * HALF)
    download(server.url(), path)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("resumed", [False, True], ids=["fresh", "resumed"])
def test_a_wrong_hash_is_an_error_and_keeps_nothing(server, path, resumed):
    if resumed:
        path.parent.mkdir(parents=True)
        part_of(path).write_bytes(b"x" * HALF)
    with pytest.raises(InputError, match=rf"{server.url()}: SHA-256 is [0-9a-f]{{64}}, expected 0123abcd") as error:
        download(server.url(), path, sha256_prefix="0123abcd")
    assert (SHA256 in str(error.value)) != resumed
    assert not path.exists() and not part_of(path).exists()


def assert_names_url_and_remedy(error, url, path):
    message = str(error.value)
    assert f"cannot download {url}: " in message
    assert "try again" in message and f"put the file at {path} yourself" in message


def test_a_missing_page_is_a_connection_error(server, path):
    with pytest.raises(ConnectionError, match="Not Found") as error:
        download(server.url("missing.bin"), path)
    assert_names_url_and_remedy(error, server.url("missing.bin"), path)
    assert not path.exists() and not part_of(path).exists()


def test_a_refused_connection_keeps_the_part(path, half_downloaded):
    with socket.socket() as closed:  # bound but not listening
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/file.bin"
        with pytest.raises(ConnectionError, match="refused") as error, pytest.MonkeyPatch.context() as environment:
            environment.setenv("no_proxy", "127.0.0.1")
            download(url, path)
    assert_names_url_and_remedy(error, url, path)
    assert half_downloaded.read_bytes() == CONTENT[:HALF] and not path.exists()


@pytest.mark.parametrize("chunked", [False, True], ids=["length_known", "length_unknown"])
@pytest.mark.parametrize("stall", [False, True], ids=["closed", "stalled"])
def test_a_partial_download_is_completed_by_the_next_call(server, path, stall, chunked):
    server.max_bytes, server.stall, server.chunked = HALF, stall, chunked
    with pytest.raises(ConnectionError) as error:
        download(server.url(), path, timeout=0.2)
    assert_names_url_and_remedy(error, server.url(), path)
    assert part_of(path).read_bytes() == CONTENT[:HALF] and not path.exists()

    server.max_bytes, server.stall = None, False
    assert download(server.url(), path, sha256_prefix=SHA256).read_bytes() == CONTENT
    assert server.requests == [None, f"bytes={HALF}-"]


def test_a_silent_server_times_out(server, path):
    server.max_bytes, server.stall = 0, True
    start = time.monotonic()
    with pytest.raises(ConnectionError, match="timed out"):
        download(server.url(), path, timeout=0.1)
    assert time.monotonic() - start < 2


def test_broken_connection_error_counts_received_bytes(server, path):
    server.max_bytes = HALF
    with pytest.raises(ConnectionError, match=f"{HALF} of {len(CONTENT)} bytes"):
        download(server.url(), path)


# ---- a part is never continued with another file


@pytest.mark.parametrize("headers", [{"ETag": '"1"'}, {"Last-Modified": "Sun, 01 Nov 2026 00:00:00 GMT"}], ids=str)
def test_without_a_hash_a_part_of_the_same_version_is_continued(server, path, headers):
    server.headers, server.max_bytes = headers, HALF
    with pytest.raises(ConnectionError):
        download(server.url(), path)
    server.max_bytes = None
    assert download(server.url(), path).read_bytes() == CONTENT
    assert server.requests == [None, f"bytes={HALF}-"] and list(path.parent.glob("*.part*")) == []


@pytest.mark.parametrize("honors_if_range", [True, False])
@pytest.mark.parametrize(
    ("before", "after"),
    [({"ETag": '"1"'}, {"ETag": '"2"'}), ({"Last-Modified": "Sun"}, {"Last-Modified": "Mon"}), ({}, {}),
     ({"ETag": 'W/"1"'}, {"ETag": 'W/"1"'})],
    ids=["etag", "date", "unknown", "weak_etag"],
)  # fmt: skip
def test_a_part_of_a_file_that_has_changed_is_discarded(server, path, before, after, honors_if_range):
    server.headers, server.max_bytes = before, HALF
    with pytest.raises(ConnectionError):
        download(server.url(), path)
    server.content, server.headers, server.max_bytes = CONTENT[::-1], after, None
    server.honors_if_range = honors_if_range
    assert download(server.url(), path).read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("shift", [-HALF, -1, 1])
def test_a_range_that_begins_elsewhere_is_discarded(server, path, half_downloaded, shift):
    server.shift = shift
    assert download(server.url(), path, sha256_prefix=SHA256).read_bytes() == CONTENT
    assert server.requests == [f"bytes={HALF}-", None]


def test_a_range_that_was_not_asked_for_is_an_error(server, path):
    server.status = 206
    with pytest.raises(ConnectionError, match="status 206"):
        download(server.url(), path)


# ---- what servers and addresses should not be


@pytest.mark.parametrize("length", ["abc", "-1", "1e9", "9" * 40])
def test_an_invalid_length_is_an_error(server, path, length):
    server.headers = {"Content-Length": length}
    with pytest.raises(ConnectionError, match="Content-Length"):
        download(server.url(), path)


@pytest.mark.parametrize("header", ["Transfer-Encoding", "Content-Encoding"])
def test_an_encoding_that_was_not_asked_for_is_an_error(server, path, header):
    server.headers = {header: "gzip"}
    with pytest.raises(ConnectionError, match=f"{header} 'gzip'"):
        download(server.url(), path)


@pytest.mark.parametrize("chunked", [False, True], ids=["length_known", "length_unknown"])
def test_a_file_without_end_is_given_up(server, path, monkeypatch, chunked):
    monkeypatch.setattr("d2_detr.utils.download.MAX_BYTES", HALF)
    server.chunked = chunked
    with pytest.raises(ConnectionError, match=f"at most {HALF}|more than {HALF}"):
        download(server.url(), path)
    assert not path.exists()


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/file", "file:///etc/hosts", "javascript:alert(1)"])
def test_a_redirection_out_of_the_web_is_an_error(server, path, target):
    server.status, server.headers = 302, {"Location": target}
    with pytest.raises(ConnectionError, match="cannot download"):
        download(server.url(), path)
    assert not path.exists()


@pytest.mark.parametrize(("target", "is_followed"), [("https://b.org/x", True), ("http://b.org/x", False)])
def test_https_is_not_given_up_by_a_redirection(target, is_followed):
    request = urllib.request.Request("https://a.org/x")
    redirect = partial(_Redirects().redirect_request, request, None, 302, "Found", Message(), target)
    if is_followed:
        assert redirect().full_url == target
    else:
        with pytest.raises(ConnectionError, match="not safe"):
            redirect()


@pytest.mark.parametrize(
    "url",
    ["http://[::1/x", "http://a.org:port/x", "http://a.org:99999/x", "http:///x", "https://", "file:///etc/hosts",
     "http://a.org/größe.pth", "http://a.org/a b", "http://a.org/a\nHost: b", "http://größe.org/a"],
)  # fmt: skip
def test_an_invalid_address_is_an_input_error(path, url):
    with pytest.raises(InputError) as error:
        download(url, path)
    assert not path.parent.exists() and str(error.value)


def test_a_file_that_fails_its_check_is_not_kept(server, path):
    def refuse(part):
        raise InputError("not a checkpoint")

    with pytest.raises(InputError, match=rf"{server.url()}: not a checkpoint; the file was removed"):
        download(server.url(), path, check=refuse)
    assert not path.exists() and list(path.parent.glob("*.part*")) == []


def test_a_full_disk_names_the_file(server, path, monkeypatch):
    path.parent.mkdir(parents=True)
    part_of(path).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as error:
        download(server.url(), path)
    assert error.value.filename == str(part_of(path)) and not isinstance(error.value, ConnectionError)


def test_file_sha256_is_that_of_the_content(tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    assert file_sha256(tmp_path / "file") == SHA256


def test_the_environment_sets_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("D2_DETR_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "d2_detr"
