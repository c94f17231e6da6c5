"""Making the state dict of any checkpoint fit a model that is there."""

from __future__ import annotations

from dataclasses import dataclass, field

from d2_detr.checkpoint.architecture import Architecture, MaskSizes, infer_architecture
from d2_detr.checkpoint.class_head import AmbiguousClassHead, read_head
from d2_detr.checkpoint.convert import CLASS_HEAD, checked
from d2_detr.checkpoint.layouts import BODY, MASK_PARTS, Format, StateDict, detect_format, from_canonical, to_canonical
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError

QUERIES = "query_embed.weight"
# Parts of a model that a checkpoint may not hold. They start anew; where nothing trains them that is an error.
PARTS = ("detector", "class head", "queries", "mask head")
_NAMES = {"class head": CLASS_HEAD, "queries": (QUERIES,), "mask head": MASK_PARTS}
# Sizes in which a checkpoint and the model must agree, and the config key that sets each.
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
    """A state dict for the model, what was done for it, and which parts of the model it leaves as they are."""

    state_dict: StateDict
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)  # a sentence for each of PARTS


def adapt(state_dict: StateDict, model: StateDict, label_map: LabelMap | None = None) -> Adaptation:
    """The tensors of a checkpoint, of whatever layout, under the names of the model and with its class head.

    A class head that cannot be read as one of the model's size is left out, and so are queries of another number, and a
    mask head where the model has none.

    Args:
        state_dict: of the checkpoint.
        model: state dict of the model.
        label_map: what is known of the classes of the checkpoint.

    Raises:
        InputError: it is not of DETR, or of a DETR of other sizes, or nothing of it fits.
    """
    format = detect_format(state_dict)
    ours, _ = to_canonical(model, Format.PLUGIN)
    if format in (Format.PLUGIN, Format.IMAGENET):
        common, _ = to_canonical(state_dict, format)
        fit = Adaptation(common, [f"layout of {format.title}"])
    else:
        common, report = checked(state_dict, format)
        fit = Adaptation(common, [str(report)])
    if format is Format.IMAGENET:
        _check_backbone(common, ours)
        fit.left_out["detector"] = "of the backbone alone: the rest of DETR starts anew"
    else:
        theirs, needed = infer_architecture(common), infer_architecture(ours)
        _compare_sizes(theirs, needed)
        _fit_mask_head(fit, theirs, needed)
        _fit_class_head(fit, format, len(ours[CLASS_HEAD[1]]) - 1, label_map)
        _fit_queries(fit, ours)
        _note_missing(fit, ours)
    detectron2_backbone = any(name.startswith("detr.backbone.0.stem.") for name in model)
    fit.state_dict = from_canonical(fit.state_dict, Format.PLUGIN, detectron2_backbone=detectron2_backbone)
    return fit


def _compare_sizes(theirs: Architecture, ours: Architecture) -> None:
    _compare(theirs, ours, _KEYS)
    if theirs.mask_head and ours.mask_head:
        _compare(theirs.mask_head, ours.mask_head, _MASK_KEYS)


def _compare(theirs: Architecture | MaskSizes, ours: Architecture | MaskSizes, keys: dict[str, str]) -> None:
    different = [name for name in keys if getattr(theirs, name) != getattr(ours, name)]
    if different:
        pairs = [f"{name} {getattr(theirs, name)}, here {getattr(ours, name)}" for name in different]
        raise InputError(
            f"of a DETR of other sizes: {'; '.join(pairs)}. Take the config that it was trained with, or set "
            + ", ".join(keys[name] for name in different)
        )


def _check_backbone(common: StateDict, ours: StateDict) -> None:
    needed = {name: t.shape for name, t in ours.items() if name.startswith(BODY) and "num_batches" not in name}
    if other := [name for name, shape in needed.items() if name not in common or common[name].shape != shape]:
        raise InputError(
            f"{len(other)} tensors of the backbone are missing or of another shape, as {other[0]}: of another ResNet "
            "than MODEL.RESNETS.DEPTH says?"
        )


def _fit_class_head(fit: Adaptation, format: Format, num_classes: int, label_map: LabelMap | None) -> None:
    if not all(name in fit.state_dict for name in CLASS_HEAD):
        fit.left_out["class head"] = "without a class head: the model's own starts anew"
        return
    weight, bias = (fit.state_dict.pop(name) for name in CLASS_HEAD)
    try:
        head, note = read_head(weight, bias, format, label_map=label_map, num_classes=num_classes)
        if len(head.label_map) != num_classes:
            raise AmbiguousClassHead(f"the classes of its head are {len(head.label_map)}, of the model {num_classes}")
    except AmbiguousClassHead as error:
        fit.left_out["class head"] = f"{error}: the class head is left out and starts anew, all else is loaded"
        return
    fit.state_dict |= dict(zip(CLASS_HEAD, (head.weight, head.bias), strict=True))
    fit.notes.append(note)


def _fit_queries(fit: Adaptation, ours: StateDict) -> None:
    if QUERIES in fit.state_dict and len(fit.state_dict[QUERIES]) != len(ours[QUERIES]):
        theirs = len(fit.state_dict.pop(QUERIES))
        fit.left_out["queries"] = (
            f"it has {theirs} object queries, the model {len(ours[QUERIES])}: they start anew. Set "
            f"MODEL.DETR.NUM_OBJECT_QUERIES {theirs} to keep what they learned"
        )


def _fit_mask_head(fit: Adaptation, theirs: Architecture, ours: Architecture) -> None:
    if ours.mask_head and not theirs.mask_head:
        fit.left_out["mask head"] = "without a mask head: the model's own starts anew"
    if theirs.mask_head and not ours.mask_head:
        fit.state_dict = {name: t for name, t in fit.state_dict.items() if not name.startswith(MASK_PARTS)}
        fit.notes.append("its mask head is left out: MODEL.MASK_ON is False")


def _note_missing(fit: Adaptation, ours: StateDict) -> None:
    """What is missing besides the parts that were left out; of the layouts but our own that is an error already."""
    known = tuple(name for part in fit.left_out for name in _NAMES[part])
    missing = [n for n in ours if n not in fit.state_dict and not n.startswith(known) and "num_batches" not in n]
    if missing:
        fit.left_out["detector"] = f"without {len(missing)} tensors of the model, as {missing[0]}: they start anew"
