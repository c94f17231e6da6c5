"""The balloon datasets: copied, drawn, downloaded, loaded, and never left incomplete."""

import hashlib
import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from pycocotools.coco import COCO

from d2_detr.data.datasets import balloon, load_dataset
from d2_detr.data.datasets.synthetic import draw_dataset
from d2_detr.utils.errors import InputError
from tests.utils.loopback import serve

REAL = os.environ.get("BALLOON_DIR")


@pytest.fixture
def source(tmp_path):
    """An unpacked dataset of 3 + 2 tiny images."""
    for seed, (split, num_images) in enumerate({"train": 3, "val": 2}.items()):
        draw_dataset(tmp_path / "source" / split, num_images, size=32, seed=seed)
    return tmp_path / "source"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "datasets" / "balloon"


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def num_regions(split_folder):
    return sum(len(entry["regions"]) for entry in json.loads((split_folder / balloon.VIA_FILE).read_text()).values())


def assert_complete(folder, source):
    """Assert that the images equal the source and the annotations have as many images and balloons."""
    files = content(source)
    assert {name: data for name, data in content(folder).items() if not name.startswith("annotations")} == files
    for split, num_images in {"train": 3, "val": 2}.items():
        assert balloon.count(folder, split) == (num_images, num_regions(source / split))


# ---- loaded


def test_a_prepared_dataset_loads_with_its_metadata(drawn_balloons):
    dataset = load_dataset("balloon_drawn_train")
    num_images, num_balloons = balloon.count(drawn_balloons, "train")
    assert len(dataset.records) == num_images
    assert [a["category_id"] for r in dataset.records for a in r["annotations"]] == [0] * num_balloons
    assert all(Path(record["file_name"]).parent == drawn_balloons / "train" for record in dataset.records)
    assert dataset.label_map.names == ("balloon",) and dataset.metadata.evaluator_type == "coco"
    assert dataset.json_file == drawn_balloons / "annotations" / "balloon_drawn_train.json"


# ---- from a local folder


def test_preparing_from_a_folder_copies_and_converts(folder, source):
    before = content(source)
    balloon.prepare_real(folder, source)
    assert_complete(folder, source)
    assert content(source) == before


def test_a_read_only_source_gives_a_writable_copy(folder, source):
    for path in source.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    balloon.prepare_real(folder, source)
    for path in (folder / "train").rglob("*"):
        assert path.stat().st_mode & 0o200, path
    assert (folder / "train").stat().st_mode & 0o200


def test_the_annotations_are_read_by_pycocotools(folder, source):
    balloon.prepare_real(folder, source)
    coco = COCO(str(balloon.annotation_file(folder, "train")))
    for annotation in coco.anns.values():
        assert coco.annToMask(annotation).sum() == pytest.approx(annotation["area"], rel=0.3)


def test_a_second_call_needs_no_source(folder, source):
    balloon.prepare_real(folder, source)
    before = content(folder)
    shutil.rmtree(source)
    balloon.prepare_real(folder, source)
    assert content(folder) == before


@pytest.mark.parametrize("missing", ["val/via_region_data.json", "train/balloons_00001.jpg"])
def test_a_missing_file_is_named_and_the_call_can_be_repeated(folder, source, missing):
    kept = (source / missing).read_bytes()
    (source / missing).unlink()
    with pytest.raises(FileNotFoundError) as error:
        balloon.prepare_real(folder, source)
    assert str(source / missing) in str(error.value) and "\n" not in str(error.value)
    assert content(folder) == {}

    (source / missing).write_bytes(kept)
    balloon.prepare_real(folder, source)
    assert_complete(folder, source)


def test_a_broken_annotation_is_named_before_copying(folder, source):
    (source / "val" / balloon.VIA_FILE).write_text('{"a": {"filename": "balloons_00000.jpg", "regions": [{}]}}')
    with pytest.raises(InputError, match=r"val/via_region_data\.json: balloons_00000\.jpg: region 0"):
        balloon.prepare_real(folder, source)
    assert content(folder) == {}


# ---- drawn


def test_balloons_are_drawn_once_and_converted_every_time(monkeypatch, tmp_path):
    monkeypatch.setattr(balloon, "NUM_DRAWN", {"train": 3, "val": 2})
    folder = tmp_path / "balloon_drawn"
    balloon.prepare_drawn(folder)
    before = content(folder)
    assert balloon.count(folder, "train")[0] == 3 and balloon.count(folder, "val")[0] == 2
    assert before["train/balloons_00000.jpg"] != before["val/balloons_00000.jpg"], "the splits differ"

    monkeypatch.setattr(balloon, "draw_dataset", lambda *args, **kwargs: pytest.fail("drawn again"))
    shutil.rmtree(folder / "annotations")
    balloon.prepare_drawn(folder)
    assert content(folder) == before


# ---- downloaded


@pytest.fixture
def packed(monkeypatch, tmp_path, source):
    """A server with the source as a zip file, including files that macOS adds; the manifest lists the source."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, data in content(source).items():
            file.writestr(f"balloon/{name}", data)
        file.writestr("__MACOSX/balloon/train/._balloons_00000.jpg", b"junk")
        file.writestr("balloon/../../escaped.txt", b"junk")
    manifest = {name: hashlib.sha256(data).hexdigest() for name, data in content(source).items()}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(balloon, "MANIFEST", tmp_path / "manifest.json")
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path / "cache"))
    with serve(archive.getvalue()) as server:
        monkeypatch.setattr(balloon, "URL", server.url("balloon_dataset.zip"))
        yield server


def damaged(archive, name):
    """The archive with one byte of the stored file `name` changed."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        data = file.read(name)
    assert archive.count(data) == 1
    return archive.replace(data, data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])


def repacked(archive, name):
    """A valid archive in which the file `name` has other content."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(result, "w") as new:
        for member in old.namelist():
            new.writestr(member, b"another" if member == name else old.read(member))
    return result.getvalue()


def test_a_download_keeps_only_the_files_of_the_manifest(folder, source, packed, tmp_path):
    balloon.prepare_real(folder)
    assert_complete(folder, source)
    assert not list(tmp_path.rglob("escaped.txt"))


def test_the_archive_is_downloaded_once(folder, packed):
    balloon.prepare_real(folder)
    shutil.rmtree(folder)
    balloon.prepare_real(folder)
    assert packed.requests == [None] and balloon.count(folder, "train")[0] == 3


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda archive: repacked(archive, "balloon/val/balloons_00001.jpg"), r"1 of 7 files.*val/balloons_00001\.jpg"),
        (lambda archive: damaged(archive, "balloon/val/balloons_00001.jpg"), "CRC"),
        (lambda archive: archive[: len(archive) // 2], "zip"),
        (lambda archive: b"<html>Sign in to the network</html>", "zip"),
    ],
    ids=["another_file", "byte_changed", "truncated", "no_zip"],
)
def test_a_wrong_archive_is_removed_and_downloaded_again(folder, source, packed, damage, reason):
    valid = packed.content
    packed.content = damage(valid)
    with pytest.raises(InputError, match=reason) as error:
        balloon.prepare_real(folder)
    assert packed.url("balloon_dataset.zip") in str(error.value)
    assert list(folder.iterdir()) == []

    packed.content = valid
    balloon.prepare_real(folder)
    assert_complete(folder, source)


def with_flags(archive, offset, value):
    """The archive with two bytes of the first member's header, and of its entry in the directory, changed."""
    for start, skip in ((archive.index(b"PK\x03\x04"), 0), (archive.index(b"PK\x01\x02"), 2)):
        position = start + offset + skip
        archive = archive[:position] + value + archive[position + 2 :]
    return archive


def with_link(archive):
    """The archive with a symbolic link in place of a file."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(result, "w") as new:
        for member in old.infolist():
            is_link = member.filename == "balloon/val/balloons_00001.jpg"
            if is_link:
                member.create_system, member.external_attr = 3, 0o120777 << 16
            new.writestr(member, b"/etc/hosts" if is_link else old.read(member))
    return result.getvalue()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda archive: with_flags(archive, 6, b"\x01\x00"), "is encrypted"),
        (lambda archive: with_flags(archive, 8, b"\x62\x00"), "compressed by another method"),
        (lambda archive: with_flags(archive, 8, b"\x0c\x00"), "compressed by another method"),
        (with_link, r"1 of 7 files.*val/balloons_00001\.jpg"),
    ],
    ids=["encrypted", "unknown_method", "bzip2", "symbolic_link"],
)
def test_an_archive_that_cannot_be_unpacked_is_removed(folder, source, packed, tmp_path, damage, reason):
    packed.content, valid = damage(packed.content), packed.content
    with pytest.raises(InputError, match=f"{reason}.*the archive was removed"):
        balloon.prepare_real(folder)
    assert list(folder.iterdir()) == [] and not list((tmp_path / "cache").glob("*.zip"))
    packed.content = valid
    balloon.prepare_real(folder)
    assert_complete(folder, source)


def test_an_archive_that_unpacks_to_too_much_is_refused_unpacked(folder, packed, monkeypatch):
    monkeypatch.setattr(balloon, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match=r"unpacks to [\d,]+ bytes, expected at most 1,000"):
        balloon.prepare_real(folder)
    assert list(folder.iterdir()) == []


def test_copied_folders_have_the_permissions_of_the_umask(folder, source):
    previous = os.umask(0o077)
    try:
        balloon.prepare_real(folder, source)
    finally:
        os.umask(previous)
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.rglob("*"))


def test_complete_dataset_is_neither_changed_nor_requested(folder, source, packed):
    shutil.copytree(source, folder)
    (folder / "train" / "mine.txt").write_text("mine")
    before = content(folder)
    balloon.prepare_real(folder)
    assert packed.requests == []
    assert {name: data for name, data in content(folder).items() if not name.startswith("annotations")} == before


def test_failed_download_keeps_the_existing_split(folder, source, packed):
    shutil.copytree(source / "train", folder / "train")
    before = content(folder)
    packed.content = repacked(packed.content, "balloon/train/balloons_00000.jpg")
    with pytest.raises(InputError):
        balloon.prepare_real(folder)
    assert content(folder) == before


def test_failed_download_names_the_url_and_the_archive_path(folder, packed, monkeypatch):
    monkeypatch.setattr(balloon, "URL", packed.url("missing.zip"))
    with pytest.raises(ConnectionError, match=r"missing\.zip: Not Found.*put the file at .*cache/missing\.zip"):
        balloon.prepare_real(folder)


# ---- the published dataset


@pytest.mark.skipif(not REAL, reason="BALLOON_DIR does not name the published dataset")
def test_published_dataset_matches_counts_and_manifest(folder):
    balloon.prepare_real(folder, Path(REAL))
    assert balloon.count(folder, "train") == (61, 255)
    assert balloon.count(folder, "val") == (13, 50)
    balloon.verify(folder)
    (folder / "val" / balloon.VIA_FILE).write_text("{}")
    with pytest.raises(InputError, match=r"1 of 76 files .* first val/via_region_data\.json"):
        balloon.verify(folder)
