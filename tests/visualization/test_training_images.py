"""Training images as the model sees them."""

import numpy as np
import pytest
from PIL import Image

from d2_detr.config import load_config
from d2_detr.data.datasets import load_dataset
from d2_detr.data.formats.panoptic_from_instances import make_panoptic
from d2_detr.data.mapper import DetrDatasetMapper
from d2_detr.visualization import training_images as module
from d2_detr.visualization.training_images import TRAINING_IMAGES, save_training_images
from d2_detr.workflows.train import train
from tests.shapes import draw_shapes

CONFIG = "detr_compact_balloon.yaml"
MASKS = ["MODEL.MASK_ON", "True", "INPUT.MASK_FORMAT", "bitmask"]


@pytest.fixture
def drawn(monkeypatch):
    """Record the comparisons instead of drawing them."""
    comparisons = []
    monkeypatch.setattr(module, "save_comparisons", lambda drawn, *args, **kwargs: comparisons.extend(drawn))
    return comparisons


@pytest.mark.parametrize("format", ["RGB", "BGR"])
def test_images_equal_the_mapper_output_and_keep_the_rng_state(drawn, tiny_opts, tmp_path, format):
    cfg = load_config(CONFIG, [*tiny_opts, "INPUT.FORMAT", format], str(draw_shapes(tmp_path / "coco")))
    np.random.seed(7)
    dataset = load_dataset(cfg.DATASETS.TRAIN[0], tmp_path / "coco")
    save_training_images(cfg, dataset, tmp_path / TRAINING_IMAGES)
    number = np.random.rand()
    np.random.seed(7)
    assert number == np.random.rand()
    np.random.seed(7)
    rgb = load_config(CONFIG, [*tiny_opts, "INPUT.FORMAT", "RGB"], str(tmp_path / "coco"))
    mapper = DetrDatasetMapper(rgb, is_train=True)
    for comparison, record in zip(drawn, dataset.records, strict=True):
        inputs = mapper(record)
        np.testing.assert_array_equal(comparison.image, inputs["image"].numpy().transpose(1, 2, 0))
        [view] = comparison.views
        np.testing.assert_array_equal(view.detections.boxes_xyxy, inputs["instances"].gt_boxes.tensor.numpy())
        assert view.class_names == ("disc", "square", "triangle") and view.detections.masks is None


@pytest.mark.parametrize("stuff", [(), ("MODEL.DETR.PANOPTIC_ON", "True")], ids=["instances", "panoptic"])
def test_masks_are_shown_if_the_model_has_masks(drawn, tiny_opts, tmp_path, stuff):
    root = draw_shapes(tmp_path / "coco")
    make_panoptic(root / "annotations/custom_train.json")
    cfg = load_config(CONFIG, [*tiny_opts, *MASKS, *stuff], str(root))
    save_training_images(cfg, load_dataset(cfg.DATASETS.TRAIN[0], root), tmp_path / TRAINING_IMAGES)
    for comparison in drawn:
        objects = comparison.views[0].detections
        assert objects.masks.shape == (len(objects.classes), *comparison.image.shape[:2]) and objects.masks.any()


def test_training_writes_images_that_the_report_shows(tiny_opts, tmp_path):
    opts = [*tiny_opts, "TEST.REPORT", "True", "SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "()"]
    train(load_config(CONFIG, opts, str(draw_shapes(tmp_path / "coco"))))
    with Image.open(tmp_path / TRAINING_IMAGES) as image:
        assert image.width > image.height > 300 and len(image.getcolors(1 << 24)) > 20
    assert 'alt="training images"' in (tmp_path / "report.html").read_text()
