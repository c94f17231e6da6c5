"""Detr as a meta-architecture of Detectron2."""

import pytest
import torch

import d2_detr
from d2_detr.modeling.detr import decode_detections, padding_mask
from d2_detr.utils.errors import InputError
from tests.modeling import small
from tests.modeling.small import make_input

from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import ImageList
from detectron2.utils.events import EventStorage

# Smaller than a model with a mask head.
TINY = ["MODEL.DETR.HIDDEN_DIM", "32", "MODEL.DETR.NHEADS", "4", "MODEL.DETR.DEC_LAYERS", "3"]


def tiny(*opts):
    return small.tiny(*TINY, *opts)


def test_detr_is_registered():
    assert META_ARCH_REGISTRY.get("Detr") is d2_detr.Detr


def test_training_returns_losses_of_each_layer_and_logs_errors():
    batch = [make_input(64, 48, [[4, 4, 20, 30]], [1]), make_input(50, 60, [], [])]
    with EventStorage() as storage:
        losses = tiny().train()(batch)
    assert set(losses) == {f"loss_{t}{s}" for t in ("ce", "bbox", "giou") for s in ("", "_0", "_1")}
    assert {"class_error", "cardinality_error"} <= set(storage.latest())


def test_deep_supervision_can_be_turned_off():
    losses = tiny("MODEL.DETR.DEEP_SUPERVISION", "False").train()([make_input(64, 48, [[4, 4, 20, 30]], [1])])
    assert set(losses) == {"loss_ce", "loss_bbox", "loss_giou"}


def test_inference_returns_instances_at_the_requested_size():
    [output] = tiny().eval()([make_input(64, 48) | {"height": 200, "width": 300}])
    instances = output["instances"]
    assert instances.image_size == (200, 300)
    assert set(instances.get_fields()) == {"pred_boxes", "scores", "pred_classes"}
    boxes = instances.pred_boxes.tensor
    assert 0 < len(boxes) <= 15
    assert (boxes >= 0).all() and (boxes[:, 0::2] <= 300).all() and (boxes[:, 1::2] <= 200).all()
    assert set(instances.pred_classes.tolist()) <= {0, 1}


def test_detections_do_not_depend_on_the_rest_of_the_batch():
    """Convolutions near the border see the padding, a small effect in a random model."""
    model = tiny().eval().double()
    small, large = make_input(64, 64), make_input(128, 160)
    with torch.no_grad():
        [together, _] = model([small, large])
        [alone] = model([small])
    together, alone = (output["instances"] for output in (together, alone))
    torch.testing.assert_close(together.scores, alone.scores, rtol=0, atol=2e-2)
    torch.testing.assert_close(together.pred_boxes.tensor, alone.pred_boxes.tensor, rtol=0, atol=1.0)


def test_the_padding_mask_is_true_only_on_padding():
    images = ImageList.from_tensors([torch.zeros(3, 2, 3), torch.zeros(3, 4, 2)])
    assert padding_mask(images).int().tolist() == [
        [[0, 0, 0], [0, 0, 0], [1, 1, 1], [1, 1, 1]],
        [[0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]],
    ]


def test_a_batch_without_padding_needs_no_mask():
    assert padding_mask(ImageList.from_tensors([torch.zeros(3, 4, 2), torch.zeros(3, 4, 2)])) is None


def test_checkpointed_activations_give_the_same_gradients():
    """Dropout included, whose masks are drawn a second time."""
    gradients = []
    for checkpointed in ("False", "True"):
        model = tiny("MODEL.DETR.CHECKPOINT_ACTIVATIONS", checkpointed).train()
        with EventStorage():
            sum(model(small.batch()).values()).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradient, gradients[1][name]) for name, gradient in gradients[0].items())


def test_padding_is_never_attended_to():
    network = tiny().eval().double().detr
    mask = torch.zeros(1, 64, 96, dtype=torch.bool)
    mask[:, :, 48:] = True
    features = torch.rand(1, 256, 4, 6, dtype=torch.float64)
    network.backbone[0].forward = lambda images: {"res4": features}
    before = network(torch.zeros(1, 3, 64, 96), mask)["pred_boxes"]
    features[..., 3:] += 100
    after = network(torch.zeros(1, 3, 64, 96), mask)["pred_boxes"]
    features[..., :3] += 1
    other = network(torch.zeros(1, 3, 64, 96), mask)["pred_boxes"]
    torch.testing.assert_close(after, before)
    assert (other - before).abs().max() > 1e-4


def test_detections_have_foreground_classes_and_clipped_boxes():
    logits = torch.tensor([[0.0, 1.0, 5.0], [3.0, 0.0, 0.0]])
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.5], [1.0, 0.0, 0.2, 0.2]])
    instances, queries = decode_detections(logits, boxes, (100, 200), score_threshold=0.0)
    assert queries.tolist() == [0, 1]
    assert instances.pred_classes.tolist() == [1, 0]
    torch.testing.assert_close(instances.scores, logits.softmax(-1)[[0, 1], [1, 0]])
    torch.testing.assert_close(instances.pred_boxes.tensor, torch.tensor([[50.0, 25, 150, 75], [180, 0, 200, 10]]))


def test_low_scores_and_boxes_outside_the_image_are_dropped():
    logits = torch.tensor([[0.0, 1.0, 5.0], [3.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.5], [1.5, 0.0, 0.2, 0.2], [0.5, 0.5, 0.5, 0.5]])
    instances, queries = decode_detections(logits, boxes, (100, 200), score_threshold=0.1)
    assert queries.tolist() == [2] and len(instances) == 1


@pytest.mark.parametrize("label", [2, -1], ids=["no-object", "negative"])
def test_a_class_id_out_of_range_is_an_error(label):
    with pytest.raises(InputError, match="NUM_CLASSES is 2"):
        tiny().train()([make_input(64, 48, [[4, 4, 20, 30]], [label])])


def test_the_state_dict_has_native_names_with_a_prefix():
    names = set(tiny().state_dict())
    assert all(name.startswith("detr.") for name in names)
    assert {
        "detr.backbone.0.body.layer3.1.conv2.weight",
        "detr.transformer.encoder.layers.0.self_attn.in_proj_weight",
        "detr.transformer.decoder.layers.2.multihead_attn.out_proj.weight",
        "detr.transformer.decoder.norm.weight",
        "detr.bbox_embed.layers.2.bias",
        "detr.query_embed.weight",
        "detr.class_embed.weight",
        "detr.input_proj.bias",
    } <= names


def test_bf16_losses_are_float32_and_close_to_full_precision():
    batch = [make_input(64, 48, [[4, 4, 20, 30]], [1])]
    full, half = (tiny("MODEL.DETR.AUTOCAST", choice).train()(batch) for choice in ("off", "bf16"))
    for name, loss in half.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(full[name].item(), rel=0.1), name


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.DETR.AUTOCAST", "fp8"], "AUTOCAST 'fp8'"),
        (["MODEL.DETR.AUTOCAST", "bf16", "SOLVER.AMP.ENABLED", "True"], "both on"),
        (["MODEL.RESNETS.DEPTH", "20"], "DEPTH 20"),
        (["MODEL.RESNETS.NORM", "GN"], "NORM 'GN'"),
        (["MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", "2"], "FREEZE_AT 2"),
        (["MODEL.RESNETS.RES5_DILATION", "2"], "RES5_DILATION 2 needs DEPTH"),
        (["MODEL.RESNETS.RES5_DILATION", "3"], "RES5_DILATION 3: expected 1 or 2"),
        (["MODEL.RESNETS.OUT_FEATURES", "['res6']"], "OUT_FEATURES"),
        (["MODEL.RESNETS.STRIDE_IN_1X1", "True"], "STRIDE_IN_1X1"),
        (["MODEL.DETR.NHEADS", "5"], "HIDDEN_DIM 32: expected a multiple of NHEADS 5"),
        (["MODEL.DETR.NUM_CLASSES", "0"], "NUM_CLASSES 0"),
        (["MODEL.DETR.NUM_CLASSES", "-1"], r"NUM_CLASSES is -1, .*: call d2_detr\.config\.resolve_config first"),
        (["MODEL.DETR.PANOPTIC_ON", "True"], "PANOPTIC_ON needs masks"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors_explain_an_invalid_config(opts, message):
    with pytest.raises(InputError, match=message):
        tiny(*opts)
