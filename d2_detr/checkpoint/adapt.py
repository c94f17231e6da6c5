"""Adapt the state dict of a checkpoint of any layout to a model."""

from __future__ import annotations

from dataclasses import dataclass, field

from d2_detr.checkpoint.architecture import Architecture, MaskSizes, infer_architecture
from d2_detr.checkpoint.class_head import AmbiguousClassHead, read_head
from d2_detr.checkpoint.convert import CLASS_HEAD, canonicalize
from d2_detr.checkpoint.layouts import BODY, MASK_PARTS, Format, StateDict, detect_format, from_canonical, to_canonical
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError

QUERIES = "query_embed.weight"
# Parts of a model that a checkpoint may lack. They keep their initial values, which is an error if nothing trains them.
PARTS = ("detector", "class head", "queries", "mask head")
_NAMES = {"class head": CLASS_HEAD, "queries": (QUERIES,), "mask head": MASK_PARTS}
# Sizes in which checkpoint and model must agree, and the config key of each.
_KEYS = {
    "depth": "MODEL.RESNETS.DEPTH",
    "stages": "MODEL.RESNETS.OUT_FEATURES",
    "hidden_dim": "MODEL.DETR.HIDDEN_DIM",
    "dim_feedforward": "MODEL.DETR.DIM_FEEDFORWARD",
    "encoder_layers": "MODEL.DETR.ENC_LAYERS",
    "decoder_layers": "MODEL.DETR.DEC_LAYERS",
    "pre_norm": "MODEL.DETR.PRE_NORM",
}
_MASK_KEYS = {"num_heads": "MODEL.DETR.NHEADS", "pyramid_channels": "MODEL.RESNETS.DEPTH"}


@dataclass
class Adaptation:
    """A state dict that fits a model, with a report of the changes.

    Args:
        state_dict: under the names of the model.
        notes: what was done to it.
        reinitialized: which of PARTS keep the initial values of the model, and why.
    """

    state_dict: StateDict
    notes: list[str] = field(default_factory=list)
    reinitialized: dict[str, str] = field(default_factory=dict)


def adapt(state_dict: StateDict, model: StateDict, label_map: LabelMap | None = None) -> Adaptation:
    """Rename the tensors of a checkpoint to the names of a model, and convert its class head.

    A class head that does not fit the number of classes, and queries of another number, are dropped; so is a mask head
    if the model has none.

    Args:
        state_dict: the checkpoint, in any layout.
        model: the state dict of the model, which is not changed.
        label_map: the classes of the checkpoint, if known.

    Raises:
        InputError: not DETR, or a DETR of other sizes.
    """
    format = detect_format(state_dict)
    ours, _ = to_canonical(model, Format.PLUGIN)
    if format in (Format.PLUGIN, Format.IMAGENET):
        theirs, note = to_canonical(state_dict, format)[0], f"layout of {format.title}"
    else:
        theirs, report = canonicalize(state_dict, format)
        note = str(report)
    adaptation = Adaptation(theirs, [note])
    if format is Format.IMAGENET:
        _check_backbone(theirs, ours)
        adaptation.reinitialized["detector"] = "the checkpoint only holds a backbone"
    else:
        actual, expected = infer_architecture(theirs), infer_architecture(ours)
        _check_sizes(actual, expected, _KEYS)
        if actual.mask_head and expected.mask_head:
            _check_sizes(actual.mask_head, expected.mask_head, _MASK_KEYS)
        _adapt_mask_head(adaptation, actual, expected)
        _adapt_class_head(adaptation, format, len(ours[CLASS_HEAD[1]]) - 1, label_map)
        _adapt_queries(adaptation, len(ours[QUERIES]))
        _report_missing(adaptation, ours)
    is_detectron2 = any(name.startswith("detr.backbone.0.stem.") for name in model)
    adaptation.state_dict = from_canonical(adaptation.state_dict, Format.PLUGIN, detectron2_backbone=is_detectron2)
    return adaptation


def _check_sizes(actual: Architecture | MaskSizes, expected: Architecture | MaskSizes, keys: dict[str, str]) -> None:
    different = [name for name in keys if getattr(actual, name) != getattr(expected, name)]
    if different:
        sizes = [f"{name} {getattr(actual, name)}, here {getattr(expected, name)}" for name in different]
        raise InputError(
            f"does not match the model: {'; '.join(sizes)}. Use the config that it was trained with, or set "
            + ", ".join(keys[name] for name in different)
        )


def _check_backbone(theirs: StateDict, ours: StateDict) -> None:
    expected = {name: t.shape for name, t in ours.items() if name.startswith(BODY) and "num_batches" not in name}
    if wrong := [name for name, shape in expected.items() if name not in theirs or theirs[name].shape != shape]:
        raise InputError(
            f"{len(wrong)} tensors of the backbone are missing or have another shape, first {wrong[0]}; "
            "set MODEL.RESNETS.DEPTH to the depth of the checkpoint"
        )


def _adapt_class_head(adaptation: Adaptation, format: Format, num_classes: int, label_map: LabelMap | None) -> None:
    if not all(name in adaptation.state_dict for name in CLASS_HEAD):
        adaptation.reinitialized["class head"] = "the checkpoint has none"
        return
    weight, bias = (adaptation.state_dict.pop(name) for name in CLASS_HEAD)
    try:
        head, note = read_head(weight, bias, format, label_map=label_map, num_classes=num_classes)
        if len(head.label_map) != num_classes:
            raise AmbiguousClassHead(f"it has {len(head.label_map)} classes, the model {num_classes}")
    except AmbiguousClassHead as error:
        adaptation.reinitialized["class head"] = str(error)
        return
    adaptation.state_dict |= dict(zip(CLASS_HEAD, (head.weight, head.bias), strict=True))
    adaptation.notes.append(note)


def _adapt_queries(adaptation: Adaptation, num_queries: int) -> None:
    if QUERIES not in adaptation.state_dict:
        adaptation.reinitialized["queries"] = "the checkpoint has none"
    elif len(adaptation.state_dict[QUERIES]) != num_queries:
        theirs = len(adaptation.state_dict.pop(QUERIES))
        adaptation.reinitialized["queries"] = (
            f"the checkpoint has {theirs} object queries, the model {num_queries}; set "
            f"MODEL.DETR.NUM_OBJECT_QUERIES {theirs} to keep them"
        )


def _adapt_mask_head(adaptation: Adaptation, actual: Architecture, expected: Architecture) -> None:
    if expected.mask_head and not actual.mask_head:
        adaptation.reinitialized["mask head"] = "the checkpoint has none"
    if actual.mask_head and not expected.mask_head:
        adaptation.state_dict = {n: t for n, t in adaptation.state_dict.items() if not n.startswith(MASK_PARTS)}
        adaptation.notes.append("mask head dropped: MODEL.MASK_ON is False")


def _report_missing(adaptation: Adaptation, ours: StateDict) -> None:
    """Report missing tensors of parts that are not reported yet."""
    known = tuple(name for part in adaptation.reinitialized for name in _NAMES[part])
    present = adaptation.state_dict
    missing = [n for n in ours if n not in present and not n.startswith(known) and "num_batches" not in n]
    if missing:
        others = f" and {len(missing) - 1} other tensors" if len(missing) > 1 else ""
        adaptation.reinitialized["detector"] = f"the checkpoint lacks {missing[0]}{others}"
