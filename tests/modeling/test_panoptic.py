"""Panoptic segmentation from query masks: parity with native DETR and handmade cases."""

import pytest
import torch
from safetensors.torch import load_file

from d2_detr.modeling.network import DetrNetwork
from d2_detr.modeling.panoptic import NEGLIGIBLE_AREA, panoptic_segmentation
from tests.modeling.small import MASKS, make_input, tiny
from tests.reference import native

SKY, TREE = 0, 1  # stuff
CAT, DOG = 2, 3
NO_OBJECT = 4


def query(label, score=0.9):
    """Return class probabilities: `score` for a class, the rest for no-object."""
    probabilities = torch.zeros(5)
    probabilities[label] = score
    probabilities[NO_OBJECT] += 1 - score
    return probabilities


def mask(*rows):
    """Return mask logits from rows of digits."""
    return torch.tensor([[float(cell) for cell in row] for row in rows])


def segment(queries, masks, size_hw=None):
    masks = torch.stack(masks)
    segments, info = panoptic_segmentation(
        torch.stack(queries), masks, size_hw or tuple(masks.shape[1:]), stuff_classes=(SKY, TREE), score_threshold=0.85
    )
    assert segments.dtype == torch.int32
    return segments, {s["id"]: s for s in info}


LEFT, RIGHT = mask(*["990000"] * 4), mask(*["009999"] * 4)


# ---- parity


@pytest.mark.parametrize("number", range(len(native.panoptic_cases())))
def test_segments_equal_native_detr(number):
    recorded = load_file(native.FOLDER / "native_panoptic.safetensors")
    expected = [(c, area, bool(thing)) for _, c, area, thing in recorded[f"{number}/segments"].tolist()]
    logits, masks = native.panoptic_cases()[number]
    segments, info = panoptic_segmentation(
        logits.softmax(-1), masks, native.PANOPTIC_HW,
        stuff_classes=native.STUFF, score_threshold=native.PANOPTIC_THRESHOLD,
    )  # fmt: skip
    assert [(s["category_id"], s["area"], s["isthing"]) for s in info] == expected and len(info) > 1
    assert (segments - 1).tolist() == recorded[f"{number}/ids"].tolist(), "native ids count from 0"


def test_some_recorded_segments_lose_all_their_pixels():
    """Otherwise the parity test would not cover their removal."""
    num_candidates = [
        int((logits.softmax(-1)[:, :-1].max(-1).values > native.PANOPTIC_THRESHOLD).sum())
        for logits, _ in native.panoptic_cases()
    ]
    recorded = load_file(native.FOLDER / "native_panoptic.safetensors")
    assert any(len(recorded[f"{i}/segments"]) < number for i, number in enumerate(num_candidates))


# ---- handmade cases


def test_each_pixel_gets_the_highest_mask_and_ids_start_at_1():
    segments, info = segment([query(CAT), query(DOG)], [LEFT, RIGHT])
    assert segments.tolist() == [[1, 1, 2, 2, 2, 2]] * 4
    assert {i: (s["category_id"], s["isthing"], s["area"]) for i, s in info.items()} == {
        1: (CAT, True, 8),
        2: (DOG, True, 16),
    }
    assert info[1]["score"] == pytest.approx(0.9)


def test_queries_are_merged_only_within_a_stuff_class():
    segments, info = segment([query(SKY, 0.86), query(SKY, 0.95)], [LEFT, RIGHT])
    assert (segments == 1).all()
    assert (info[1]["area"], info[1]["isthing"], info[1]["score"]) == (24, False, pytest.approx(0.95))
    _, info = segment([query(CAT), query(CAT)], [LEFT, RIGHT])
    assert len(info) == 2


def test_merged_stuff_stays_when_another_segment_is_discarded():
    """Native DETR would reassign the pixels of the second query."""
    speck = mask("800000", *["000000"] * 3)
    segments, info = segment([query(SKY), query(SKY), query(CAT)], [LEFT - 2, RIGHT, speck])
    assert (segments == 1).all() and info[1]["area"] == 24 and len(info) == 1


def test_segments_of_4_pixels_or_less_are_discarded():
    assert NEGLIGIBLE_AREA == 4
    background = torch.full((4, 6), 5.0)
    four, five = (
        mask(*rows) for rows in (["990000", "990000", *["000000"] * 2], ["990000", "999000", *["000000"] * 2])
    )
    _, info = segment([query(SKY), query(CAT)], [background, four])
    assert [s["category_id"] for s in info.values()] == [SKY] and info[1]["area"] == 24
    _, info = segment([query(SKY), query(CAT)], [background, five])
    assert [s["category_id"] for s in info.values()] == [SKY, CAT] and info[2]["area"] == 5


@pytest.mark.parametrize("other", [query(CAT, 0.84), query(NO_OBJECT, 1.0)], ids=["low_score", "no_object"])
def test_low_scores_and_no_object_are_ignored(other):
    segments, info = segment([query(DOG), other], [LEFT, torch.full((4, 6), 99.0)])
    assert (segments == 1).all() and info[1]["category_id"] == DOG


def test_without_segments_every_pixel_is_0():
    segments, info = segment([query(CAT, 0.5)], [LEFT], size_hw=(8, 12))
    assert segments.shape == (8, 12) and not segments.any() and info == {}


def test_segments_have_the_requested_size():
    segments, info = segment([query(CAT), query(DOG)], [LEFT, RIGHT], size_hw=(40, 60))
    assert segments.shape == (40, 60)
    assert sum(s["area"] for s in info.values()) == 2400
    assert abs(info[1]["area"] - 800) <= 40


# ---- Detr


@torch.no_grad()
def test_detr_returns_segments_and_instances_without_stuff(monkeypatch):
    opts = ["MODEL.DETR.PANOPTIC_ON", "True", "MODEL.DETR.STUFF_CLASSES", "(1,)"]
    model = tiny(*MASKS, *opts, "MODEL.DETR.PANOPTIC_SCORE_THRESH", "0.9").eval()
    plain = tiny(*MASKS).eval()
    class_logits = torch.eye(3)[torch.arange(15) % 2] * 5  # thing and stuff alternate
    for detr in (model.detr, plain.detr):
        detr.class_embed.register_forward_hook(lambda *_: class_logits[None, None])
    rows = torch.eye(15).repeat_interleave(2, 0)  # two rows of cells per query
    mask_logits = rows.T[:, :, None].repeat(1, 1, 12) - 0.5
    monkeypatch.setattr(DetrNetwork, "predict_masks", lambda self, inputs, images, queries: mask_logits[queries])
    [output], [all_classes] = (m([make_input(64, 48) | {"height": 100, "width": 75}]) for m in (model, plain))
    segments, info = output["panoptic_seg"]
    assert segments.shape == (100, 75) and set(segments.unique().tolist()) == {s["id"] for s in info}
    assert set(all_classes["instances"].pred_classes.tolist()) == {0, 1}
    things = all_classes["instances"].pred_classes == 0
    assert output["instances"].pred_masks.equal(all_classes["instances"].pred_masks[things])
    assert output["instances"].pred_classes.tolist() == [0] * int(things.sum())
    assert "panoptic_seg" not in all_classes


@torch.no_grad()
def test_a_panoptic_model_without_stuff_has_only_things():
    model = tiny(*MASKS, "MODEL.DETR.PANOPTIC_ON", "True", "MODEL.DETR.PANOPTIC_SCORE_THRESH", "0.1").eval()
    [output] = model([make_input(64, 48)])
    _, info = output["panoptic_seg"]
    assert info and all(segment["isthing"] for segment in info)
