"""What a training begins with: its pictures as the model sees them."""

import numpy as np
import pytest
from PIL import Image

from d2_detr.data.formats.panoptic_from_instances import make_panoptic
from d2_detr.data.mapper import DetrDatasetMapper
from d2_detr.visualization import training_images as module
from d2_detr.visualization.training_images import FILE_NAME, save_training_pictures
from d2_detr.workflows.setup import load_config
from d2_detr.workflows.train import train
from tests.shapes import draw_shapes

CONFIG = "detr_compact_balloon.yaml"
MASKS = ["MODEL.MASK_ON", "True", "INPUT.MASK_FORMAT", "bitmask"]


@pytest.fixture
def drawn(monkeypatch):
    """What would be drawn."""
    seen = []
    monkeypatch.setattr(module, "save_comparisons", lambda comparisons, *args, **kwargs: seen.extend(comparisons))
    return seen


@pytest.mark.parametrize("format", ["RGB", "BGR"])
def test_they_are_those_of_the_mapper_with_their_colours_and_leave_its_random_numbers(
    drawn, tiny_opts, tmp_path, format
):
    cfg = load_config(CONFIG, [*tiny_opts, "INPUT.FORMAT", format], str(draw_shapes(tmp_path / "coco")))
    np.random.seed(7)
    save_training_pictures(cfg, tmp_path / FILE_NAME)
    number = np.random.rand()
    np.random.seed(7)
    assert number == np.random.rand()
    np.random.seed(7)
    rgb = load_config(CONFIG, [*tiny_opts, "INPUT.FORMAT", "RGB"], str(tmp_path / "coco"))
    mapper = DetrDatasetMapper(rgb, is_train=True)
    for comparison, record in zip(drawn, module.DatasetCatalog.get("custom_train"), strict=True):
        inputs = mapper(record)
        np.testing.assert_array_equal(comparison.picture, inputs["image"].numpy().transpose(1, 2, 0))
        [view] = comparison.views
        np.testing.assert_array_equal(view.objects.boxes_xyxy, inputs["instances"].gt_boxes.tensor.numpy())
        assert view.class_names == ["disc", "square", "triangle"] and view.objects.masks is None


@pytest.mark.parametrize("stuff", [(), ("MODEL.DETR.PANOPTIC_ON", "True")], ids=["instances", "panoptic"])
def test_masks_are_shown_where_they_are_learned(drawn, tiny_opts, tmp_path, stuff):
    root = draw_shapes(tmp_path / "coco")
    make_panoptic(root / "annotations/custom_train.json")
    save_training_pictures(load_config(CONFIG, [*tiny_opts, *MASKS, *stuff], str(root)), tmp_path / FILE_NAME)
    for comparison in drawn:
        objects = comparison.views[0].objects
        assert objects.masks.shape == (len(objects.classes), *comparison.picture.shape[:2]) and objects.masks.any()


def test_a_training_begins_with_them_and_the_report_has_them(tiny_opts, tmp_path):
    opts = [*tiny_opts, "TEST.REPORT", "True", "SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "()"]
    train(load_config(CONFIG, opts, str(draw_shapes(tmp_path / "coco"))))
    with Image.open(tmp_path / FILE_NAME) as picture:
        assert picture.width > picture.height > 300 and len(picture.getcolors(1 << 24)) > 20
    assert 'alt="training pictures"' in (tmp_path / "report.html").read_text()
