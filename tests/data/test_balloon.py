"""The balloon datasets: registered, copied, drawn, downloaded, and nothing half done."""

import hashlib
import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from pycocotools.coco import COCO

from d2_detr.data.datasets import balloon
from d2_detr.data.datasets.synthetic import draw_dataset
from d2_detr.utils.errors import InputError
from tests.loopback import serve

from detectron2.data import DatasetCatalog, MetadataCatalog

REAL = os.environ.get("BALLOON_DIR")


@pytest.fixture
def source(tmp_path):
    """An unpacked dataset of 3 + 2 tiny pictures, as a person has it."""
    for seed, (split, num_pictures) in enumerate({"train": 3, "val": 2}.items()):
        draw_dataset(tmp_path / "source" / split, num_pictures, size=32, seed=seed)
    return tmp_path / "source"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "datasets" / "balloon"


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def num_regions(split_folder):
    return sum(len(entry["regions"]) for entry in json.loads((split_folder / balloon.VIA_FILE).read_text()).values())


def assert_complete(folder, source):
    """Pictures as in the source, annotations with as many pictures and balloons."""
    files = content(source)
    assert {name: data for name, data in content(folder).items() if not name.startswith("annotations")} == files
    for split, num_pictures in {"train": 3, "val": 2}.items():
        assert balloon.count(folder, split) == (num_pictures, num_regions(source / split))


# ---- registered


@pytest.mark.parametrize("split", balloon.SPLITS)
@pytest.mark.parametrize("name", ["balloon", "balloon_drawn"])
def test_both_datasets_are_registered_with_their_metadata(name, split):
    metadata = MetadataCatalog.get(f"{name}_{split}")
    folder = balloon.datasets_folder() / name
    assert f"{name}_{split}" in DatasetCatalog
    assert metadata.thing_classes == ["balloon"] and metadata.evaluator_type == "coco"
    assert metadata.json_file == str(folder / "annotations" / f"{name}_{split}.json")
    assert metadata.image_root == str(folder / split)


def test_a_prepared_dataset_loads_as_detectron2_dicts(drawn_balloons):
    dicts = DatasetCatalog.get("balloon_drawn_train")
    num_pictures, num_balloons = balloon.count(drawn_balloons, "train")
    assert len(dicts) == num_pictures
    assert [a["category_id"] for d in dicts for a in d["annotations"]] == [0] * num_balloons
    assert all(Path(d["file_name"]).parent == drawn_balloons / "train" for d in dicts)


def test_a_dataset_that_is_not_prepared_names_the_file_and_the_tool(monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"prepare_balloon\.py") as error:
        DatasetCatalog.get("balloon_train")
    assert str(tmp_path / "balloon" / "annotations" / "balloon_train.json") in str(error.value)


# ---- from a local folder


def test_preparing_from_a_folder_copies_and_converts_and_leaves_the_folder_as_it_is(folder, source):
    before = content(source)
    balloon.prepare_real(folder, source)
    assert_complete(folder, source)
    assert content(source) == before


def test_a_read_only_source_gives_a_copy_that_can_be_changed(folder, source):
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


def test_a_second_time_takes_what_is_there_and_needs_no_source(folder, source):
    balloon.prepare_real(folder, source)
    before = content(folder)
    shutil.rmtree(source)
    balloon.prepare_real(folder, source)
    assert content(folder) == before


@pytest.mark.parametrize("missing", ["val/via_region_data.json", "train/balloons_00001.jpg"])
def test_a_missing_file_is_named_and_when_it_is_there_the_same_call_works(folder, source, missing):
    kept = (source / missing).read_bytes()
    (source / missing).unlink()
    with pytest.raises(FileNotFoundError) as error:
        balloon.prepare_real(folder, source)
    assert str(source / missing) in str(error.value) and "\n" not in str(error.value)
    assert content(folder) == {}

    (source / missing).write_bytes(kept)
    balloon.prepare_real(folder, source)
    assert_complete(folder, source)


def test_a_broken_annotation_is_named_before_anything_is_copied(folder, source):
    (source / "val" / balloon.VIA_FILE).write_text('{"a": {"filename": "balloons_00000.jpg", "regions": [{}]}}')
    with pytest.raises(InputError, match=r"val/via_region_data\.json: balloons_00000\.jpg: region 0"):
        balloon.prepare_real(folder, source)
    assert content(folder) == {}


# ---- drawn


def test_drawn_data_are_drawn_once_and_converted_every_time(monkeypatch, tmp_path):
    monkeypatch.setattr(balloon, "DRAWN_PICTURES", {"train": 3, "val": 2})
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
    """The zip file of the source, with the files that macOS adds, on a server; the manifest is of the source."""
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
    """A sound archive in which the file `name` is another."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(result, "w") as new:
        for member in old.namelist():
            new.writestr(member, b"another" if member == name else old.read(member))
    return result.getvalue()


def test_a_download_brings_the_files_of_the_manifest_and_nothing_else(folder, source, packed, tmp_path):
    balloon.prepare_real(folder)
    assert_complete(folder, source)
    assert not list(tmp_path.rglob("escaped.txt"))


def test_the_archive_is_fetched_once(folder, packed):
    balloon.prepare_real(folder)
    shutil.rmtree(folder)
    balloon.prepare_real(folder)
    assert packed.asked == [None] and balloon.count(folder, "train")[0] == 3


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda archive: repacked(archive, "balloon/val/balloons_00001.jpg"), r"1 of 7 files.*val/balloons_00001\.jpg"),
        (lambda archive: damaged(archive, "balloon/val/balloons_00001.jpg"), "CRC"),
        (lambda archive: archive[: len(archive) // 2], "zip"),
        (lambda archive: b"<html>Sign in to the network</html>", "zip"),
    ],
    ids=["another_file", "a_byte_changed", "cut_short", "no_zip"],
)
def test_a_wrong_archive_is_an_error_leaves_nothing_and_is_fetched_anew(folder, source, packed, damage, reason):
    sound = packed.content
    packed.content = damage(sound)
    with pytest.raises(InputError, match=reason) as error:
        balloon.prepare_real(folder)
    assert packed.url("balloon_dataset.zip") in str(error.value)
    assert list(folder.iterdir()) == []

    packed.content = sound
    balloon.prepare_real(folder)
    assert_complete(folder, source)


def test_complete_data_are_not_touched_and_nothing_is_asked_for(folder, source, packed):
    shutil.copytree(source, folder)
    (folder / "train" / "mine.txt").write_text("mine")
    before = content(folder)
    balloon.prepare_real(folder)
    assert packed.asked == []
    assert {name: data for name, data in content(folder).items() if not name.startswith("annotations")} == before


def test_when_the_download_fails_the_half_that_is_there_stays(folder, source, packed):
    shutil.copytree(source / "train", folder / "train")
    before = content(folder)
    packed.content = repacked(packed.content, "balloon/train/balloons_00000.jpg")
    with pytest.raises(InputError):
        balloon.prepare_real(folder)
    assert content(folder) == before


def test_an_unreachable_server_is_named_with_the_place_for_the_archive(folder, packed, monkeypatch):
    monkeypatch.setattr(balloon, "URL", packed.url("missing.zip"))
    with pytest.raises(ConnectionError, match=r"missing\.zip: Not Found.*put the file at .*cache/missing\.zip"):
        balloon.prepare_real(folder)


# ---- the published dataset


@pytest.mark.skipif(not REAL, reason="BALLOON_DIR does not name the published dataset")
def test_the_published_dataset_has_its_counts_and_agrees_with_the_manifest(folder):
    balloon.prepare_real(folder, Path(REAL))
    assert balloon.count(folder, "train") == (61, 255)
    assert balloon.count(folder, "val") == (13, 50)
    balloon.verify(folder)
    (folder / "val" / balloon.VIA_FILE).write_text("{}")
    with pytest.raises(InputError, match=r"1 of 76 files .* first val/via_region_data\.json"):
        balloon.verify(folder)
