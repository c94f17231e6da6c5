"""Describe a checkpoint in words."""

from __future__ import annotations

from collections.abc import Iterator

from d2_detr.checkpoint.architecture import Architecture, check_complete, infer_architecture
from d2_detr.checkpoint.class_head import AmbiguousClassHead, read_head
from d2_detr.checkpoint.convert import CLASS_HEAD
from d2_detr.checkpoint.layouts import Format, StateDict, detect_format, to_canonical
from d2_detr.checkpoint.metadata import Metadata
from d2_detr.checkpoint.read import Checkpoint
from d2_detr.utils.errors import InputError

NAMES_SHOWN = 10


def describe_checkpoint(checkpoint: Checkpoint) -> str:
    """List format, backbone, layers, queries, classes, masks and parameters, one per line.

    Raises:
        InputError: not DETR, or a DETR without one of its parts.
    """
    state_dict, metadata = checkpoint.state_dict, checkpoint.metadata
    format = detect_format(state_dict)
    lines = [("format", format.title)]
    if format is Format.IMAGENET:
        lines.append(("parameters", f"{sum(tensor.numel() for tensor in state_dict.values()):,}"))
    else:
        canonical, _ = to_canonical(state_dict, format)
        architecture = infer_architecture(canonical)
        lines += _sizes(architecture, metadata)
        lines.append(("class head", _class_head(canonical, format, metadata)))
        lines.append(("complete", _completeness(canonical, architecture)))
    if metadata.warning:
        lines.append(("note", metadata.warning))
    return "\n".join(f"{name:16} {value}" for name, value in lines)


def _sizes(a: Architecture, metadata: Metadata) -> Iterator[tuple[str, str]]:
    dilation = {True: ", dilated (DC5)", False: "", None: " (dilation unknown)"}
    yield "backbone", a.backbone + dilation[metadata.dilation]
    order = "before" if a.pre_norm else "after"
    layers = f"{a.encoder_layers} encoder and {a.decoder_layers} decoder layers"
    yield "transformer", f"{layers}, layer norm {order} each block"
    num_heads = a.mask_head.num_heads if a.mask_head else metadata.num_heads
    heads = "" if num_heads is None else f", {num_heads} attention heads"
    yield "width", f"{a.hidden_dim}, feed-forward {a.dim_feedforward}{heads}"
    yield "queries", "none" if a.num_queries is None else str(a.num_queries)
    yield "masks", "yes" if a.mask_head else "no"
    yield "parameters", f"{a.num_parameters:,}"


def _class_head(canonical: StateDict, format: Format, metadata: Metadata) -> str:
    if not all(name in canonical for name in CLASS_HEAD):
        return "none"
    weight, bias = (canonical[name] for name in CLASS_HEAD)
    try:
        head, note = read_head(weight, bias, format, label_map=metadata.label_map)
    except AmbiguousClassHead as error:
        return str(error)
    names = list(head.label_map.names[:NAMES_SHOWN])
    more = ", ..." if len(head.label_map) > NAMES_SHOWN else ""
    return note.removeprefix("class head: ") + (f": {', '.join(names)}{more}" if names else "")


def _completeness(canonical: StateDict, architecture: Architecture) -> str:
    try:
        unknown = check_complete(canonical, architecture)
    except InputError as error:
        return str(error)
    complete = "yes" if all(name in canonical for name in CLASS_HEAD) else "yes, except for the class head"
    return complete + (f"; {len(unknown)} other tensors are not a part of DETR, first {unknown[0]}" if unknown else "")
