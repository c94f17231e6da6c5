"""Downloads from a server on this machine, with the faults that real ones have."""

import hashlib
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from d2_detr.utils.download import cache_folder, download, file_sha256
from d2_detr.utils.errors import InputError
from tests.loopback import serve

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
def half_arrived(path):
    part = path.with_name("file.bin.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:HALF])
    return part


def part_of(path):
    return path.with_name(path.name + ".part")


@pytest.mark.parametrize("chunked", [False, True], ids=["length_known", "length_unknown"])
def test_a_fresh_download_has_the_served_bytes_and_leaves_no_part(server, path, chunked):
    server.chunked = chunked
    assert download(server.url(), path, sha256_prefix=SHA256[:8]) == path
    assert path.read_bytes() == CONTENT and not part_of(path).exists()
    assert server.asked == [None]


def test_a_file_that_is_there_is_not_asked_for(server, path):
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    assert download(server.url(), path, sha256_prefix=SHA256).read_bytes() == b"mine"
    assert server.asked == []


def test_callers_at_the_same_time_ask_once_and_all_get_the_file(server, path):
    server.pause = 0.1  # time for all of them to ask
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: download(server.url(), path).read_bytes(), range(4)))
    assert results == [CONTENT] * 4 and server.asked == [None]


def test_a_part_is_continued_where_it_ends(server, path, half_arrived):
    download(server.url(), path, sha256_prefix=SHA256)
    assert server.asked == [f"bytes={HALF}-"]
    assert path.read_bytes() == CONTENT and not half_arrived.exists()


def test_a_complete_part_only_takes_its_name(server, path, half_arrived):
    half_arrived.write_bytes(CONTENT)
    download(server.url(), path, sha256_prefix=SHA256)
    assert path.read_bytes() == CONTENT and not half_arrived.exists()


def test_without_range_support_a_part_starts_anew(server, path, half_arrived):
    server.ranges = False
    half_arrived.write_bytes(b"x" * HALF)
    download(server.url(), path)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("resumed", [False, True], ids=["fresh", "resumed"])
def test_another_hash_is_an_error_with_both_and_nothing_is_kept(server, path, resumed):
    if resumed:
        path.parent.mkdir(parents=True)
        part_of(path).write_bytes(b"x" * HALF)
    with pytest.raises(InputError, match=rf"{server.url()}: SHA-256 is [0-9a-f]{{64}}, expected 0123abcd") as error:
        download(server.url(), path, sha256_prefix="0123abcd")
    assert (SHA256 in str(error.value)) != resumed
    assert not path.exists() and not part_of(path).exists()


def assert_names_address_and_remedy(error, url, path):
    message = str(error.value)
    assert f"cannot download {url}: " in message
    assert "try again" in message and f"put the file at {path} yourself" in message


def test_a_missing_page_is_a_connection_error_that_names_address_reason_and_remedy(server, path):
    with pytest.raises(ConnectionError, match="Not Found") as error:
        download(server.url("missing.bin"), path)
    assert_names_address_and_remedy(error, server.url("missing.bin"), path)
    assert not path.exists() and not part_of(path).exists()


def test_a_refused_connection_is_a_connection_error_and_the_part_stays(path, half_arrived):
    with socket.socket() as closed:  # bound but not listening
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/file.bin"
        with pytest.raises(ConnectionError, match="refused") as error, pytest.MonkeyPatch.context() as environment:
            environment.setenv("no_proxy", "127.0.0.1")
            download(url, path)
    assert_names_address_and_remedy(error, url, path)
    assert half_arrived.read_bytes() == CONTENT[:HALF] and not path.exists()


@pytest.mark.parametrize("chunked", [False, True], ids=["length_known", "length_unknown"])
@pytest.mark.parametrize("stall", [False, True], ids=["broken_off", "stalled"])
def test_what_arrived_before_the_end_is_kept_and_the_next_call_completes_it(server, path, stall, chunked):
    server.most, server.stall, server.chunked = HALF, stall, chunked
    with pytest.raises(ConnectionError) as error:
        download(server.url(), path, timeout=0.2)
    assert_names_address_and_remedy(error, server.url(), path)
    assert part_of(path).read_bytes() == CONTENT[:HALF] and not path.exists()

    server.most, server.stall = None, False
    assert download(server.url(), path, sha256_prefix=SHA256).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={HALF}-"]


def test_a_silent_server_is_given_up_after_the_timeout_and_not_long_after(server, path):
    server.most, server.stall = 0, True
    start = time.monotonic()
    with pytest.raises(ConnectionError, match="timed out"):
        download(server.url(), path, timeout=0.1)
    assert time.monotonic() - start < 2


def test_a_connection_broken_off_says_how_much_arrived(server, path):
    server.most = HALF
    with pytest.raises(ConnectionError, match=f"{HALF} of {len(CONTENT)} bytes"):
        download(server.url(), path)


def test_sha256_is_that_of_the_content(tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    assert file_sha256(tmp_path / "file") == SHA256


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("D2_DETR_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "d2_detr"
