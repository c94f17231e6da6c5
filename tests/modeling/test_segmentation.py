"""The mask head: masks at image size, losses, and which masks are computed."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from d2_detr.modeling import detr as detr_module
from d2_detr.modeling import segmentation
from d2_detr.modeling.segmentation import binary_masks, mask_losses, resize_logits
from tests.modeling.small import MASKS, batch, make_input, tiny

# ---- masks at image size


def draw(shape, size_hw, supersampling=4):
    """Return the fraction of each pixel (H, W) that a shape covers."""
    height, width = size_hw
    canvas = Image.new("L", (width * supersampling, height * supersampling))
    pen, side = ImageDraw.Draw(canvas), np.array(canvas.size)
    if shape == "star":
        angles = np.linspace(0, 2 * math.pi, 24, endpoint=False)
        radius = np.where(np.arange(24) % 2, 0.22, 0.45)
        points = (0.5 + np.stack([np.cos(angles), np.sin(angles)], 1) * radius[:, None]) * side
        pen.polygon([tuple(point) for point in points], fill=255)
    elif shape == "ring":
        pen.ellipse([*(0.05 * side), *(0.95 * side)], fill=255)
        pen.ellipse([*(0.09 * side), *(0.91 * side)], fill=0)
    else:
        pen.polygon([tuple(np.array(corner) * side) for corner in [(0.05, 0.1), (0.1, 0.05), (0.95, 0.9), (0.9, 0.95)]],
                    fill=255)  # fmt: skip
    return torch.from_numpy(np.array(canvas.resize((width, height), Image.Resampling.BOX))) / 255


def ideal_head(shape, image_hw):
    """Return `forward` of a perfect mask head: logit 0 if a cell is half covered."""

    def forward(self, features, attention, pyramid, images):
        cells_hw = pyramid[-1].shape[-2:]
        assert cells_hw == tuple(math.ceil(side / 4) for side in image_hw), "cells of the image without padding"
        return (draw(shape, cells_hw, supersampling=16).repeat(len(attention), 1, 1) - 0.5) * 20

    return forward


@torch.no_grad()
@pytest.mark.parametrize("shape", ["star", "ring", "diagonal"])
@pytest.mark.parametrize(
    ("image_hw", "other_hw", "size_hw"),
    [
        ((800, 800), (800, 800), (800, 800)),
        ((800, 640), (1066, 1333), (800, 640)),
        ((800, 1333), (1333, 800), (1200, 2000)),
        ((750, 801), (1001, 1099), (500, 534)),
    ],
    ids=["not_padded", "padded", "padded_and_enlarged", "odd_sizes"],
)
def test_padding_and_resizing_preserve_an_ideal_mask(monkeypatch, shape, image_hw, other_hw, size_hw):
    model = tiny(*MASKS, "MODEL.DETR.NUM_OBJECT_QUERIES", "1").eval()
    monkeypatch.setattr(segmentation.MaskHead, "forward", ideal_head(shape, image_hw))
    inputs = {"image": torch.zeros(3, *image_hw), "height": size_hw[0], "width": size_hw[1]}
    other = {"image": torch.zeros(3, *other_hw)}
    with monkeypatch.context() as patch:
        predict = model._predict_image
        patch.setattr(model, "_predict_image", lambda *args: predict(*args) if args[1] == size_hw else {})
        [output, _] = model([inputs, other])
    [mask], gt_mask = output["instances"].pred_masks, draw(shape, size_hw) > 0.5
    assert mask.shape == gt_mask.shape
    assert (mask & gt_mask).sum() / (mask | gt_mask).sum() > 0.98


def test_masks_resized_in_chunks_are_the_same(monkeypatch):
    logits = torch.randn(7, 10, 12, generator=torch.Generator().manual_seed(0))
    expected = resize_logits(logits, (66, 96)) > 0
    chunk_sizes = []
    monkeypatch.setattr(segmentation, "MAX_PIXELS_PER_CHUNK", 3 * 66 * 96)
    monkeypatch.setattr(
        segmentation, "resize_logits", lambda chunk, size: chunk_sizes.append(len(chunk)) or resize_logits(chunk, size)
    )
    masks = binary_masks(logits, (66, 96))
    assert masks.equal(expected) and masks.dtype == torch.bool
    assert chunk_sizes == [3, 3, 1]


# ---- losses


def test_losses_are_low_for_perfect_and_high_for_inverted_masks():
    gt_masks = [draw("star", (64, 64))[None] > 0.5, torch.zeros(0, 50, 70, dtype=torch.bool)]
    padded = F.pad(gt_masks[0], (0, 6)).float() * 40 - 20
    good, bad = (mask_losses(sign * padded, gt_masks, torch.tensor(1.0)) for sign in (1, -1))
    assert set(good) == {"loss_mask", "loss_dice"}
    assert all(loss < 1e-3 for loss in good.values())
    assert bad["loss_dice"] > 0.99 and bad["loss_mask"] > 5


def test_an_empty_prediction_of_an_empty_mask_has_no_loss():
    losses = mask_losses(torch.full((1, 8, 8), -30.0), [torch.zeros(1, 32, 32, dtype=torch.bool)], torch.tensor(1.0))
    assert all(loss < 1e-6 for loss in losses.values())


def test_mask_losses_are_divided_by_the_number_of_boxes():
    logits, gt_masks = torch.randn(3, 8, 8), [torch.rand(3, 32, 32) > 0.5]
    one, four = (mask_losses(logits, gt_masks, torch.tensor(float(n))) for n in (1, 4))
    for name, loss in one.items():
        torch.testing.assert_close(four[name], loss / 4)


# ---- which masks are computed


@pytest.fixture
def computed(monkeypatch):
    """Record the number of queries in each call of the mask head."""
    numbers = []
    original = segmentation.MaskHead.forward
    monkeypatch.setattr(
        segmentation.MaskHead,
        "forward",
        lambda self, features, attention, *rest: (
            numbers.append(len(attention)) or original(self, features, attention, *rest)
        ),
    )
    return numbers


def test_training_computes_masks_of_matched_queries_only(computed):
    model = tiny(*MASKS).train()
    losses = model(batch())
    assert computed == [3]  # objects in the batch
    assert {"loss_mask", "loss_dice"} <= set(losses)
    assert not {"loss_mask_0", "loss_dice_0"} & set(losses), "only the last layer has masks"


@torch.no_grad()
def test_inference_computes_masks_of_detections_only(computed):
    model = tiny(*MASKS).eval()
    [unfiltered] = model([make_input(64, 48)])
    scores = unfiltered["instances"].scores
    threshold = scores.median().item()
    computed.clear()
    [output] = tiny(*MASKS, "MODEL.DETR.SCORE_THRESH_TEST", str(threshold)).eval()([make_input(64, 48)])
    assert sum(computed) == len(output["instances"]) == (scores >= threshold).sum() < len(scores)
    kept = unfiltered["instances"][scores >= threshold]
    assert output["instances"].pred_masks.equal(kept.pred_masks)


@torch.no_grad()
def test_masks_computed_in_chunks_are_the_same(monkeypatch, computed):
    model = tiny(*MASKS).eval().double()
    [together] = model([make_input(64, 48)])
    computed.clear()
    monkeypatch.setattr(detr_module, "MAX_CELLS_PER_CHUNK", 1)
    [chunked] = model([make_input(64, 48)])
    assert set(computed) == {1} and len(computed) == len(chunked["instances"])
    assert chunked["instances"].pred_masks.equal(together["instances"].pred_masks)


# ---- outputs and gradients


@torch.no_grad()
def test_masks_are_bool_at_the_requested_size(computed):
    inputs = [make_input(64, 48) | {"height": 200, "width": 150}, make_input(50, 60)]
    for output, size_hw in zip(tiny(*MASKS).eval()(inputs), [(200, 150), (50, 60)], strict=True):
        masks = output["instances"].pred_masks
        assert masks.dtype == torch.bool
        assert masks.shape == (len(output["instances"].scores), *size_hw)


@torch.no_grad()
def test_without_detections_the_masks_are_empty():
    [output] = tiny(*MASKS, "MODEL.DETR.SCORE_THRESH_TEST", "1.0").eval()([make_input(64, 48)])
    assert output["instances"].pred_masks.shape == (0, 64, 48)


@torch.no_grad()
def test_masks_do_not_depend_on_the_rest_of_the_batch():
    """Convolutions near the border see the padding: a small effect."""
    model = tiny(*MASKS).eval().double()
    small, large = make_input(256, 192), make_input(256, 320)
    [together, _], [alone] = model([small, large]), model([small])
    together, alone = (output["instances"].pred_masks for output in (together, alone))
    assert 0.2 < alone.float().mean() < 0.8, "empty masks would prove nothing"
    assert (together == alone).float().mean() > 0.95


@pytest.mark.parametrize(
    "opts",
    [
        [],
        ["MODEL.RESNETS.DEPTH", "50", "MODEL.RESNETS.OUT_FEATURES", "['res5']"],
        ["MODEL.RESNETS.DEPTH", "50", "MODEL.RESNETS.OUT_FEATURES", "['res5']", "MODEL.RESNETS.RES5_DILATION", "2"],
        ["MODEL.DETR.AUTOCAST", "bf16"],
    ],
    ids=["r18_truncated", "r50", "r50_dc5", "bf16"],
)  # fmt: skip
def test_the_mask_head_has_gradients_with_every_backbone(opts):
    model = tiny(*MASKS, *opts).train()
    losses = model(batch())
    (losses["loss_mask"] + losses["loss_dice"]).backward()
    assert losses["loss_mask"].dtype == torch.float32
    for name in ("bbox_attention.q_linear", "mask_head.lay1", "mask_head.adapter3", "mask_head.out_lay", "input_proj"):
        assert model.get_parameter(f"detr.{name}.weight").grad.abs().max() > 0, name


def test_without_objects_every_parameter_has_a_gradient():
    """Distributed training waits for all gradients, so none may be missing."""
    model = tiny(*MASKS).train()
    losses = model([make_input(64, 48, [], []), make_input(50, 60, [], [])])
    assert losses["loss_mask"] == losses["loss_dice"] == 0
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
