"""What a checkpoint is, in words."""

from __future__ import annotations

from collections.abc import Iterator

from d2_detr.checkpoint.architecture import Architecture, check_complete, infer_architecture
from d2_detr.checkpoint.class_head import AmbiguousClassHead, read_head
from d2_detr.checkpoint.convert import CLASS_HEAD
from d2_detr.checkpoint.layouts import Format, StateDict, detect_format, to_canonical
from d2_detr.checkpoint.metadata import Metadata
from d2_detr.utils.errors import InputError

NAMES_SHOWN = 10


def inspect(state_dict: StateDict, metadata: Metadata) -> str:
    """Format, backbone, layers, queries, classes, masks and parameters of a state dict, one to a line."""
    format = detect_format(state_dict)
    common, _ = to_canonical(state_dict, format)
    if format is Format.IMAGENET:
        lines = [("format", format.title), ("parameters", f"{sum(t.numel() for t in state_dict.values()):,}")]
    else:
        lines = [("format", format.title), *_sizes(infer_architecture(common), metadata)]
        lines += [("class head", _class_head(common, format, metadata)), ("complete", _complete(common))]
    if metadata.warning:
        lines.append(("note", metadata.warning))
    return "\n".join(f"{name:16} {value}" for name, value in lines)


def _sizes(a: Architecture, metadata: Metadata) -> Iterator[tuple[str, str]]:
    dilation = {True: ", dilated (DC5)", False: "", None: " (dilated or not: the file does not tell)"}
    yield "backbone", a.backbone + dilation[metadata.dilation]
    order = "before" if a.pre_norm else "after"
    yield (
        "transformer",
        f"{a.encoder_layers} encoder and {a.decoder_layers} decoder layers, layer norm {order} each block",
    )
    num_heads = a.mask_head.num_heads if a.mask_head else metadata.num_heads
    heads = "" if num_heads is None else f", {num_heads} attention heads"
    yield "width", f"{a.hidden_dim}, feed-forward {a.dim_feedforward}{heads}"
    yield "queries", "none" if a.num_queries is None else str(a.num_queries)
    yield "masks", "yes" if a.mask_head else "no"
    yield "parameters", f"{a.parameters:,}"


def _class_head(common: StateDict, format: Format, metadata: Metadata) -> str:
    if not all(name in common for name in CLASS_HEAD):
        return "none"
    weight, bias = (common[name] for name in CLASS_HEAD)
    try:
        head, note = read_head(weight, bias, format, label_map=metadata.label_map)
    except AmbiguousClassHead as error:
        return str(error)
    names = list(head.label_map.names[:NAMES_SHOWN])
    more = ", ..." if len(head.label_map) > NAMES_SHOWN else ""
    return note.removeprefix("class head: ") + (f": {', '.join(names)}{more}" if names else "")


def _complete(common: StateDict) -> str:
    try:
        unknown = check_complete(common, infer_architecture(common))
    except InputError as error:
        return str(error)
    whole = "yes" if all(name in common for name in CLASS_HEAD) else "but for the class head"
    return whole + (f"; besides {len(unknown)} tensors that are not of DETR, as {unknown[0]}" if unknown else "")
