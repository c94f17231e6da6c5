"""Large annotation files are parsed once; any change of the file, or of the cache, is noticed."""

import logging
import os
import shutil
from multiprocessing import get_context

import pytest

from d2_detr.config import load_config
from d2_detr.config.keys import CUSTOM_TRAIN, CUSTOM_VAL
from d2_detr.data.datasets import custom, load_dataset, load_datasets, split_cache
from d2_detr.data.validation import checked_images, checks
from d2_detr.utils.errors import InputError
from tests import shapes


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(split_cache, "MIN_BYTES", 1)
    return tmp_path / "cache" / "datasets"


@pytest.fixture
def root(tmp_path):
    return shapes.draw_shapes(tmp_path / "coco")


@pytest.fixture
def parsed(monkeypatch):
    """Names of the annotation files that are parsed, in whatever way."""
    names = []
    encode_coco, parse_coco = custom.encode_coco, custom.parse_coco

    def in_pieces(path, image_root, root):
        names.append(path.name)
        return encode_coco(path, image_root, root)

    def as_a_whole(content, image_root, *, source, **options):
        names.append(source.name)
        return parse_coco(content, image_root, source=source, **options)

    monkeypatch.setattr(custom, "encode_coco", in_pieces)
    monkeypatch.setattr(custom, "parse_coco", as_a_whole)
    return names


@pytest.fixture
def warnings(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("d2_detr"), "propagate", True)
    return lambda: [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def load_train(root, **options):
    return load_dataset(CUSTOM_TRAIN, root, evaluated=False, **options)


def load_all(root):
    datasets = load_datasets(load_config("detr_r50_custom.yaml", [], root))
    return datasets.train[0], datasets.test[0]


def add_degenerate(root):
    coco = shapes.read(root, "train")
    coco["annotations"][1]["bbox"] = [5, 5, 0, 9]
    shapes.write(coco, root, "train")


def test_a_second_run_parses_nothing_and_has_the_same_data(root, parsed, monkeypatch):
    first = load_all(root)
    assert parsed == ["custom_train.json", "custom_val.json"]
    second = load_all(root)
    assert len(parsed) == 2
    monkeypatch.setattr(split_cache, "MIN_BYTES", 1 << 30)
    uncached = load_all(root)
    for dataset, same, expected in zip(first, second, uncached, strict=True):
        assert list(dataset.records) == list(same.records) == list(expected.records)
        assert dataset.label_map == same.label_map == expected.label_map
    assert first[1].json_file == second[1].json_file == uncached[1].json_file


def test_small_files_are_not_remembered(root, parsed, monkeypatch, cache):
    monkeypatch.setattr(split_cache, "MIN_BYTES", 16 << 20)
    for _ in range(2):
        load_all(root)
    assert len(parsed) == 4 and not [*cache.glob("*.records")]


def test_validation_alone_needs_only_the_categories_of_the_training_set(root, parsed):
    dataset = load_dataset(CUSTOM_VAL, root)
    assert parsed == ["custom_val.json"] and len(dataset.label_map) == 3
    assert load_dataset(CUSTOM_VAL, root).label_map == dataset.label_map and len(parsed) == 1


# ---- changes


def touch(root):
    path = root / "annotations/custom_train.json"
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))


def replace_with_the_same_size_and_time(root):
    path = root / "annotations/custom_train.json"
    status = path.stat()
    path.write_bytes(path.read_bytes().replace(b"disc", b"coin"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", [touch, replace_with_the_same_size_and_time, add_degenerate])
def test_a_changed_file_is_parsed_again_and_replaces_what_was_remembered(root, parsed, cache, change):
    load_train(root)
    change(root)
    names = load_train(root).label_map.names
    assert len(parsed) == 2 and len([*cache.glob("*.records")]) == 1
    assert names[0] == shapes.read(root, "train")["categories"][0]["name"]
    load_train(root)
    assert len(parsed) == 2


def test_other_training_categories_make_validation_be_read_again(root, parsed):
    load_dataset(CUSTOM_VAL, root)
    coco = shapes.read(root, "train")
    shapes.write(coco | {"categories": [*coco["categories"], {"id": 99, "name": "star"}]}, root, "train")
    assert len(load_dataset(CUSTOM_VAL, root).label_map) == 4 and len(parsed) == 2


def test_a_copy_of_the_folder_has_its_own_images(root, tmp_path):
    load_train(root)
    other = shutil.copytree(root, tmp_path / "other")
    assert load_train(other).records[0]["file_name"].startswith(str(other))


@pytest.mark.parametrize(
    "damage",
    [lambda b: b"", lambda b: b[:10], lambda b: b[:-1], lambda b: b"x" + b[1:], lambda b: bytes(len(b)),
     lambda b: b + b, lambda b: b.replace(b"category_id", b"category_ie", 1)],
    ids=["empty", "short", "truncated", "first_byte", "zeros", "twice", "record"],
)  # fmt: skip
def test_a_damaged_cache_is_replaced(root, parsed, cache, damage):
    expected = list(load_train(root).records)
    (path,) = cache.glob("*.records")
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert list(load_train(root).records) == expected and len(parsed) == 2
    assert path.read_bytes() == content


def test_a_cache_that_cannot_be_written_is_a_warning(root, parsed, warnings, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path / "file"))
    assert len(load_train(root).records) == 6
    (warning,) = warnings()
    assert "cannot be written" in warning and "D2_DETR_CACHE" in warning


def test_a_missing_file_for_ap_is_written_again(root):
    path = load_dataset(CUSTOM_VAL, root).json_file
    content = path.read_bytes()
    path.unlink()
    assert load_dataset(CUSTOM_VAL, root).json_file.read_bytes() == content


# ---- warnings and errors


def test_dropped_annotations_are_warned_about_in_each_run(root, parsed, warnings):
    add_degenerate(root)
    for _ in range(2):
        load_train(root)
    assert len(parsed) == 1
    first, second = warnings()
    assert first == second and "1 of 20 annotations are dropped" in first


def test_strict_finds_errors_that_were_only_warned_about(root):
    add_degenerate(root)
    load_train(root)
    with pytest.raises(InputError, match=r"custom_train\.json: annotations\[1\] .* has zero width; correct it"):
        load_train(root, strict=True)


def test_errors_of_large_files_are_those_of_small_ones(root, monkeypatch):
    coco = shapes.read(root, "train")
    coco["annotations"][2]["image_id"] = 77
    shapes.write(coco, root, "train")
    messages = []
    for min_bytes in (1, 1 << 30):
        monkeypatch.setattr(split_cache, "MIN_BYTES", min_bytes)
        with pytest.raises(InputError) as error:
            load_train(root)
        messages.append(str(error.value))
    assert messages[0] == messages[1] and "annotations[2] (id 2): image_id 77 is not among" in messages[0]


# ---- processes


def load_in_process(root, cache):
    os.environ["D2_DETR_CACHE"] = cache
    split_cache.MIN_BYTES = 1
    return list(load_train(root).records)


def test_two_processes_at_once_read_the_same(root, tmp_path):
    with get_context("spawn").Pool(2) as pool:
        arguments = [(root, str(tmp_path / "cache"))] * 4
        results = pool.starmap(load_in_process, arguments, chunksize=1)
    assert all(result == results[0] for result in results) and len(results[0]) == 6


# ---- images that were checked


@pytest.fixture
def opened(monkeypatch):
    """Numbers of images that are read in each check."""
    monkeypatch.setattr(checked_images, "MIN_IMAGES", 1)
    files = []
    check_image = checks.check_image

    def check(path, annotated_wh):
        files.append(path)
        return check_image(path, annotated_wh)

    monkeypatch.setattr(checks, "check_image", check)
    return files


def test_only_images_that_changed_are_checked_again(root, opened):
    dataset = load_train(root)
    checks.check_images([dataset])
    assert len(opened) == 6
    checks.check_images([dataset])
    assert len(opened) == 6
    path = root / "train2017/00004.png"
    path.write_bytes(path.read_bytes()[:-30])
    for _ in range(2):  # what is wrong is never remembered
        with pytest.raises(InputError, match=r"00004\.png: the image is damaged or truncated"):
            checks.check_images([dataset])
    assert opened[6:] == [str(path)] * 2
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"00004\.png: no such image"):
        checks.check_images([dataset])


def test_another_annotated_size_is_checked(root, opened):
    checks.check_images([load_train(root)])
    coco = shapes.read(root, "train")
    coco["images"][3]["width"] = 200
    shapes.write(coco, root, "train")
    with pytest.raises(InputError, match=r"00004\.png: the image is 64 x 64 pixels"):
        checks.check_images([load_train(root)])


def test_damaged_memory_of_images_is_no_error(root, opened, cache):
    checks.check_images([load_train(root)])
    (path,) = cache.glob("*.checked")
    path.write_bytes(b"damaged")
    checks.check_images([load_train(root)])
    assert len(opened) == 12


def test_several_processes_find_what_one_finds(root, monkeypatch):
    dataset = load_train(root)
    (root / "train2017/00002.png").unlink()
    (root / "train2017/00005.png").unlink()
    monkeypatch.setattr(checks, "num_cores", lambda: 2)
    for size in (2, 2000):
        monkeypatch.setattr(checks, "CHUNK_SIZE", size)
        with pytest.raises(FileNotFoundError, match=r"00002\.png: .*\(and 1 more invalid images\)$"):
            checks.check_images([dataset])
