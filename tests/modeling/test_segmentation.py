"""Masks at the size of the picture, and what the mask head computes and leaves alone."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from d2_detr.modeling import detr as detr_module
from d2_detr.modeling import segmentation
from d2_detr.modeling.segmentation import binary_masks, mask_losses, resize_logits
from tests.modeling.small import MASKS, batch, picture, tiny

# ---- masks at the size of the picture


def draw(shape, size_hw, supersampling=4):
    """How much of each pixel of a picture a shape covers, (H, W)."""
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
    """A mask head that is perfect on the cells of the picture: logit 0 where a cell is half covered."""

    def forward(self, features, attention, pyramid, pictures):
        cells_hw = pyramid[-1].shape[-2:]
        assert cells_hw == tuple(math.ceil(side / 4) for side in image_hw), "the picture's own cells, without padding"
        return (draw(shape, cells_hw, supersampling=16).repeat(len(attention), 1, 1) - 0.5) * 20

    return forward


@torch.no_grad()
@pytest.mark.parametrize("shape", ["star", "ring", "diagonal"])
@pytest.mark.parametrize(
    ("image_hw", "beside_hw", "size_hw"),
    [
        ((800, 800), (800, 800), (800, 800)),
        ((800, 640), (1066, 1333), (800, 640)),
        ((800, 1333), (1333, 800), (1200, 2000)),
        ((750, 801), (1001, 1099), (500, 534)),
    ],
    ids=["not_padded", "padded", "padded_and_enlarged", "odd_sizes"],
)
def test_an_ideal_mask_comes_out_as_it_is_at_any_size_and_padding(monkeypatch, shape, image_hw, beside_hw, size_hw):
    model = tiny(*MASKS, "MODEL.DETR.NUM_OBJECT_QUERIES", "1").eval()
    monkeypatch.setattr(segmentation.MaskHead, "forward", ideal_head(shape, image_hw))
    inputs = {"image": torch.zeros(3, *image_hw), "height": size_hw[0], "width": size_hw[1]}
    beside = {"image": torch.zeros(3, *beside_hw)}
    with monkeypatch.context() as patch:
        patch.setattr(model, "_found", lambda *args, found=model._found: found(*args) if args[1] == size_hw else {})
        [output, _] = model([inputs, beside])
    [mask], truth = output["instances"].pred_masks, draw(shape, size_hw) > 0.5
    assert mask.shape == truth.shape
    assert (mask & truth).sum() / (mask | truth).sum() > 0.98


def test_many_masks_are_brought_to_size_a_few_at_a_time_with_the_same_result(monkeypatch):
    logits = torch.randn(7, 10, 12, generator=torch.Generator().manual_seed(0))
    expected = resize_logits(logits, (66, 96)) > 0
    at_once = []
    monkeypatch.setattr(segmentation, "PIXELS_AT_ONCE", 3 * 66 * 96)
    monkeypatch.setattr(
        segmentation, "resize_logits", lambda part, size: at_once.append(len(part)) or resize_logits(part, size)
    )
    found = binary_masks(logits, (66, 96))
    assert found.equal(expected) and found.dtype == torch.bool
    assert at_once == [3, 3, 1]


# ---- losses


def test_a_perfect_mask_costs_nearly_nothing_and_its_opposite_much():
    gt_masks = [draw("star", (64, 64))[None] > 0.5, torch.zeros(0, 50, 70, dtype=torch.bool)]
    padded = F.pad(gt_masks[0], (0, 6)).float() * 40 - 20
    good, bad = (mask_losses(sign * padded, gt_masks, torch.tensor(1.0)) for sign in (1, -1))
    assert set(good) == {"loss_mask", "loss_dice"}
    assert all(loss < 1e-3 for loss in good.values())
    assert bad["loss_dice"] > 0.99 and bad["loss_mask"] > 5


def test_where_there_is_nothing_to_see_a_mask_of_nothing_costs_nothing():
    losses = mask_losses(torch.full((1, 8, 8), -30.0), [torch.zeros(1, 32, 32, dtype=torch.bool)], torch.tensor(1.0))
    assert all(loss < 1e-6 for loss in losses.values())


def test_mask_losses_are_divided_by_the_number_of_boxes():
    logits, gt_masks = torch.randn(3, 8, 8), [torch.rand(3, 32, 32) > 0.5]
    one, four = (mask_losses(logits, gt_masks, torch.tensor(float(n))) for n in (1, 4))
    for name, loss in one.items():
        torch.testing.assert_close(four[name], loss / 4)


# ---- which queries are computed


@pytest.fixture
def computed(monkeypatch):
    """Number of queries in each call of the mask head."""
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


def test_training_computes_the_masks_of_matched_queries_alone(computed):
    model = tiny(*MASKS).train()
    losses = model(batch())
    assert computed == [3]  # objects in the batch
    assert {"loss_mask", "loss_dice"} <= set(losses)
    assert not {"loss_mask_0", "loss_dice_0"} & set(losses), "the last layer has masks alone"


@torch.no_grad()
def test_inference_computes_the_masks_above_the_score_threshold_alone(computed):
    model = tiny(*MASKS).eval()
    [everything] = model([picture(64, 48)])
    scores = everything["instances"].scores
    threshold = scores.median().item()
    computed.clear()
    [output] = tiny(*MASKS, "MODEL.DETR.SCORE_THRESH_TEST", str(threshold)).eval()([picture(64, 48)])
    assert sum(computed) == len(output["instances"]) == (scores >= threshold).sum() < len(scores)
    kept = everything["instances"][scores >= threshold]
    assert output["instances"].pred_masks.equal(kept.pred_masks)


@torch.no_grad()
def test_masks_computed_a_few_at_a_time_are_the_same(monkeypatch, computed):
    model = tiny(*MASKS).eval().double()
    [together] = model([picture(64, 48)])
    computed.clear()
    monkeypatch.setattr(detr_module, "CELLS_AT_ONCE", 1)
    [apart] = model([picture(64, 48)])
    assert set(computed) == {1} and len(computed) == len(apart["instances"])
    assert apart["instances"].pred_masks.equal(together["instances"].pred_masks)


# ---- what comes out


@torch.no_grad()
def test_masks_are_bool_at_the_wanted_size(computed):
    wanted = [picture(64, 48) | {"height": 200, "width": 150}, picture(50, 60)]
    for output, size_hw in zip(tiny(*MASKS).eval()(wanted), [(200, 150), (50, 60)], strict=True):
        masks = output["instances"].pred_masks
        assert masks.dtype == torch.bool
        assert masks.shape == (len(output["instances"].scores), *size_hw)


@torch.no_grad()
def test_where_nothing_is_found_there_are_0_masks_of_the_wanted_size():
    [output] = tiny(*MASKS, "MODEL.DETR.SCORE_THRESH_TEST", "1.1").eval()([picture(64, 48)])
    assert output["instances"].pred_masks.shape == (0, 64, 48)


@torch.no_grad()
def test_masks_of_a_picture_in_a_padded_batch_are_those_that_it_has_alone():
    """Up to what convolutions see across the border into the padding."""
    model = tiny(*MASKS).eval().double()
    small, large = picture(256, 192), picture(256, 320)
    [together, _], [alone] = model([small, large]), model([small])
    together, alone = (output["instances"].pred_masks for output in (together, alone))
    assert 0.2 < alone.float().mean() < 0.8, "masks of nothing prove nothing"
    assert (together == alone).float().mean() > 0.95


@pytest.mark.parametrize(
    "opts",
    [
        [],
        ["MODEL.RESNETS.DEPTH", "50", "MODEL.RESNETS.OUT_FEATURES", "['res5']"],
        ["MODEL.RESNETS.DEPTH", "50", "MODEL.RESNETS.OUT_FEATURES", "['res5']", "MODEL.RESNETS.RES5_DILATION", "2"],
        ["MODEL.DETR.AUTOCAST", "bf16"],
    ],
    ids=["r18_cut", "r50", "r50_dc5", "bf16"],
)  # fmt: skip
def test_every_backbone_trains_a_mask_head_with_gradients_everywhere(opts):
    model = tiny(*MASKS, *opts).train()
    losses = model(batch())
    (losses["loss_mask"] + losses["loss_dice"]).backward()
    assert losses["loss_mask"].dtype == torch.float32
    for name in ("bbox_attention.q_linear", "mask_head.lay1", "mask_head.adapter3", "mask_head.out_lay", "input_proj"):
        assert model.get_parameter(f"detr.{name}.weight").grad.abs().max() > 0, name


def test_pictures_without_objects_train_and_every_parameter_has_a_gradient():
    """Several processes wait for each other's gradients, so that none may be missing."""
    model = tiny(*MASKS).train()
    losses = model([picture(64, 48, [], []), picture(50, 60, [], [])])
    assert losses["loss_mask"] == losses["loss_dice"] == 0
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
