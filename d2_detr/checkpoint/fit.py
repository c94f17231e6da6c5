"""Making the state dict of any checkpoint fit a model that is there."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from d2_detr.checkpoint.architecture import Architecture, architecture_of
from d2_detr.checkpoint.class_head import LabelMap, UndecidedRows, read_head
from d2_detr.checkpoint.convert import CLASS_HEAD, checked
from d2_detr.checkpoint.layouts import Format, StateDict, detect_format, from_common, to_common
from d2_detr.errors import InputError

QUERIES = "query_embed.weight"
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


@dataclass
class Fit:
    """A state dict for the model, what was done for it, and which parts of the model it leaves as they are."""

    state_dict: StateDict
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def fitted(state_dict: StateDict, model: StateDict, label_map: LabelMap | None = None) -> Fit:
    """The tensors of a checkpoint, of whatever layout, under the names of the model and with its class head.

    A class head that cannot be read as one of the model's size is left out, and so are queries of another number.

    Args:
        state_dict: of the checkpoint.
        model: state dict of the model.
        label_map: what is known of the classes of the checkpoint.

    Raises:
        InputError: it is not of DETR, or of a DETR of other sizes, or nothing of it fits.
    """
    format = detect_format(state_dict)
    ours, _ = to_common(model, Format.PLUGIN)
    if format in (Format.PLUGIN, Format.IMAGENET):
        common, _ = to_common(state_dict, format)
        fit = Fit(common, [f"layout of {format.title}"])
    else:
        common, report = checked(state_dict, format)
        fit = Fit(common, [str(report)])
    if format is Format.IMAGENET:
        fit.left_out.append("of the backbone alone: the rest of DETR starts anew")
    else:
        _compare_sizes(architecture_of(common), architecture_of(ours))
        _fit_class_head(fit, format, len(ours[CLASS_HEAD[1]]) - 1, label_map)
        _fit_queries(fit, ours)
    if not any(name in ours and ours[name].shape == tensor.shape for name, tensor in fit.state_dict.items()):
        raise InputError("nothing of it fits the model: is it the checkpoint of another backbone?")
    detectron2_backbone = any(name.startswith("detr.backbone.0.stem.") for name in model)
    fit.state_dict = from_common(fit.state_dict, Format.PLUGIN, detectron2_backbone=detectron2_backbone)
    return fit


def _compare_sizes(theirs: Architecture, ours: Architecture) -> None:
    names = [f.name for f in fields(Architecture) if f.name in _KEYS]
    different = [name for name in names if getattr(theirs, name) != getattr(ours, name)]
    if different:
        pairs = [f"{name} {getattr(theirs, name)}, here {getattr(ours, name)}" for name in different]
        raise InputError(
            f"of a DETR of other sizes: {'; '.join(pairs)}. Take the config that it was trained with, or set "
            + ", ".join(_KEYS[name] for name in different)
        )


def _fit_class_head(fit: Fit, format: Format, num_classes: int, label_map: LabelMap | None) -> None:
    if not all(name in fit.state_dict for name in CLASS_HEAD):
        fit.left_out.append("without a class head: the model's own starts anew")
        return
    weight, bias = (fit.state_dict.pop(name) for name in CLASS_HEAD)
    try:
        head, note = read_head(weight, bias, format, label_map=label_map, num_classes=num_classes)
        if len(head.label_map) != num_classes:
            raise UndecidedRows(f"its class head is of {len(head.label_map)} classes, the model of {num_classes}")
    except UndecidedRows as error:
        fit.left_out.append(f"{error}: the class head is left out and starts anew, all else is loaded")
        return
    fit.state_dict |= dict(zip(CLASS_HEAD, (head.weight, head.bias), strict=True))
    fit.notes.append(note)


def _fit_queries(fit: Fit, ours: StateDict) -> None:
    if QUERIES in fit.state_dict and len(fit.state_dict[QUERIES]) != len(ours[QUERIES]):
        theirs = len(fit.state_dict.pop(QUERIES))
        fit.left_out.append(
            f"it has {theirs} object queries, the model {len(ours[QUERIES])}: they start anew. Set "
            f"MODEL.DETR.NUM_OBJECT_QUERIES {theirs} to keep what they learned"
        )
