"""Datasets are registered on first use, and do not replace those of the user."""

import subprocess
import sys

import pytest

from d2_detr.data.datasets import balloon, load_dataset, register_dataset
from d2_detr.structures.label_map import LabelMap

from detectron2.data import DatasetCatalog, MetadataCatalog


def test_user_can_register_balloon_names_after_the_import():
    """Detectron2's Colab tutorial registers these names, which fails if they are taken."""
    script = """
import d2_detr
from detectron2.data import DatasetCatalog, MetadataCatalog
for split in ("train", "val"):
    DatasetCatalog.register(f"balloon_{split}", lambda split=split: [{"file_name": split}])
    MetadataCatalog.get(f"balloon_{split}").set(thing_classes=["balloon"])
from d2_detr.data.datasets import load_dataset
assert load_dataset("balloon_train").records == [{"file_name": "train"}]
"""
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


@pytest.fixture
def lazy():
    """A registered dataset whose classes are known only after loading."""

    def load():
        MetadataCatalog.get("lazy").set(thing_classes=["a", "b"], thing_dataset_id_to_contiguous_id={9: 0, 4: 1})
        return [{"image_id": 1}]

    DatasetCatalog.register("lazy", load)
    yield "lazy"
    DatasetCatalog.remove("lazy")
    MetadataCatalog.pop("lazy", None)


def test_a_dataset_of_the_catalog_is_read_with_its_classes(lazy):
    dataset = load_dataset(lazy)
    assert dataset.records == [{"image_id": 1}] and dataset.label_map == LabelMap((9, 4), ("a", "b"))
    assert dataset.things is dataset and dataset.stuff_classes == ()


def test_balloon_folder_is_looked_up_at_load_time(drawn_balloons, monkeypatch, tmp_path):
    register_dataset("balloon_drawn_val")
    before = load_dataset("balloon_drawn_val")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "balloon_drawn").symlink_to(drawn_balloons)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "other"))
    after = load_dataset("balloon_drawn_val")
    assert str(before.json_file).startswith(str(drawn_balloons))
    folder = str(tmp_path / "other" / "balloon_drawn")
    assert str(after.json_file).startswith(folder) and after.records[0]["file_name"].startswith(folder)


@pytest.mark.parametrize("name", balloon.DATASETS)
def test_unprepared_balloon_error_names_file_and_command(monkeypatch, tmp_path, name):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    command = r"make-?_?panoptic" if name.endswith("_panoptic") else r"prepare[_-]balloon"
    with pytest.raises(FileNotFoundError, match=rf"annotations/\S+\.json.*{command}"):
        load_dataset(name)


@pytest.mark.parametrize("split", ["train", "val"])
def test_coco_panoptic_metadata_names_its_files(split):
    name = f"coco_2017_{split}_panoptic"
    register_dataset(name)
    metadata = MetadataCatalog.get(name)
    assert name in DatasetCatalog and metadata.instances == f"coco_2017_{split}"
    assert metadata.evaluator_type == "coco_panoptic_seg"
    assert metadata.panoptic_json.endswith(f"coco/annotations/panoptic_{split}2017.json")
    assert metadata.panoptic_root.endswith(f"coco/panoptic_{split}2017")
    assert metadata.image_root.endswith(f"coco/{split}2017")
