"""Names and URLs of weights."""

import hashlib
import io
import logging
from pathlib import Path

import pytest
import torch

from d2_detr.checkpoint import weights
from d2_detr.checkpoint.weights import local_weights
from d2_detr.utils.errors import InputError
from tests.utils.loopback import serve


def checkpoint(value):
    file = io.BytesIO()
    torch.save({"a": torch.tensor(value)}, file)
    return file.getvalue()


CONTENT = b"weights"
HASH = hashlib.sha256(CONTENT).hexdigest()[:8]


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def downloads(monkeypatch):
    """Replace downloads by a record of them: (url, path, hash)."""
    calls = []

    def download(url, path, *, sha256_prefix="", check=None):
        calls.append((url, path, sha256_prefix))
        return path

    monkeypatch.setattr(weights, "download", download)
    return calls


@pytest.mark.parametrize(
    ("depth", "file_name", "sha256_prefix"),
    [
        (18, "resnet18-f37072fd.pth", "f37072fd"),
        (34, "resnet34-b627a593.pth", "b627a593"),
        (50, "resnet50-0676ba61.pth", "0676ba61"),
        (101, "resnet101-63fe2227.pth", "63fe2227"),
    ],
)
def test_detectron2_name_means_torchvision_file_with_hash(downloads, cache, depth, file_name, sha256_prefix):
    path = local_weights(f"detectron2://ImageNetPretrained/torchvision/R-{depth}.pkl")
    assert path == cache / file_name
    assert downloads == [(f"https://download.pytorch.org/models/{file_name}", path, sha256_prefix)]


@pytest.mark.parametrize(
    ("name", "file_name"),
    [
        ("r50", "detr-r50-e632da11.pth"),
        ("r50-dc5", "detr-r50-dc5-f0fb7ef5.pth"),
        ("r101", "detr-r101-2c7b67e5.pth"),
        ("r101-dc5", "detr-r101-dc5-a2e86def.pth"),
        ("r50-panoptic", "detr-r50-panoptic-00ce5173.pth"),
        ("r50-dc5-panoptic", "detr-r50-dc5-panoptic-da08f1b1.pth"),
        ("r101-panoptic", "detr-r101-panoptic-40021d53.pth"),
    ],
)
def test_published_names_mean_urls_with_hashes(downloads, cache, name, file_name):
    path = local_weights(f"detr://{name}")
    assert path == cache / file_name
    assert downloads == [(f"https://dl.fbaipublicfiles.com/detr/{file_name}", path, file_name[-12:-4])]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("detr://r152", "choose from detr://r50, detr://r50-dc5"),
        ("detectron2://ImageNetPretrained/torchvision/R-152.pkl", "18, 34, 50, 101"),
        ("detectron2://ImageNetPretrained/MSRA/R-50.pkl", "unknown name"),
        ("s3://bucket/detr.pth", "unknown name"),
        ("https://example.com/", "file name"),
        ("https://example.com", "file name"),
        ("https://example.com/a/..", "file name"),
        ("https://example.com/?a/b.pth", "file name"),
        ("runs/what?/model.pth", "question mark"),
    ],
    ids=["no_model", "depth", "other_weights", "scheme", "no_file", "host", "parent", "query", "question_mark"],
)
def test_unknown_name_is_refused_by_name(downloads, name, reason):
    with pytest.raises(InputError, match=reason) as error:
        local_weights(name)
    assert name in str(error.value) and downloads == []


@pytest.mark.parametrize("name", ["model.pth", "outputs/model_final.pth", "/tmp/R-50.pkl", "with space-0123abcd.pth"])
def test_path_is_returned_unchanged(downloads, name):
    assert local_weights(name) == Path(name) and downloads == []


@pytest.mark.parametrize(
    ("file_name", "sha256_prefix"),
    [
        ("detr-r50-e632da11.pth", "e632da11"),
        ("detr-r50-e632da11.pth?download=true", "e632da11"),
        ("model_final_f10217.pkl", ""),
        ("detr-r50.pth", ""),
        ("detr-r50-E632DA11.pth", ""),
        ("model.safetensors", ""),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_hash_in_the_file_name_is_checked(downloads, scheme, file_name, sha256_prefix):
    path = local_weights(f"{scheme}://example.com/some/{file_name}")
    assert path.name == file_name.split("?")[0]
    assert downloads == [(f"{scheme}://example.com/some/{file_name}", path, sha256_prefix)]


def test_url_is_downloaded_once_into_the_cache(cache):
    with serve(CONTENT) as server:
        paths = [local_weights(server.url(f"detr-{HASH}.pth")) for _ in range(2)]
    assert paths == [cache / f"detr-{HASH}.pth"] * 2 and len(server.requests) == 1
    assert paths[0].read_bytes() == CONTENT


def test_file_with_another_hash_is_not_kept(cache):
    with serve(CONTENT) as server, pytest.raises(InputError, match="expected 0123abcd"):
        local_weights(server.url("detr-0123abcd.pth"))
    assert not list(cache.glob("*.pth"))


def test_same_file_name_at_two_urls_is_two_files():
    contents = [checkpoint(value) for value in (1, 2)]
    with serve(contents[0]) as first, serve(contents[1]) as second:
        paths = [local_weights(server.url("run/model_final.pth")) for server in (first, second, first)]
    assert [path.read_bytes() for path in paths] == [*contents, contents[0]]
    assert {path.name for path in paths} == {"model_final.pth"} and len(first.requests) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<!doctype html><title>Sign in</title>", "it is a web page"),
        (b'{"message": "Not Found"}', "unknown content"),
        (checkpoint(1)[:-200], "truncated"),
        (checkpoint(1).replace(b"data", b"DATA", 1), "truncated"),
    ],
    ids=["web_page", "json", "truncated", "changed"],
)
def test_without_a_hash_only_a_checkpoint_is_kept(cache, content, reason):
    with serve(content) as server, pytest.raises(InputError, match=f"{reason}.*the file was removed"):
        local_weights(server.url("model.pth"))
    assert [path.suffix for path in cache.rglob("*") if path.is_file()] == [".lock"]


def test_a_file_that_nothing_protects_is_warned_about(caplog):
    content = checkpoint(1)
    with serve(content) as server, caplog.at_level(logging.WARNING):
        local_weights(server.url(f"detr-{hashlib.sha256(content).hexdigest()[:8]}.pth"))
        assert not caplog.records
        local_weights(server.url("model.pth"))
    assert "neither https nor a hash" in caplog.text
