"""Names of DETR's tensors in each layout.

All renaming goes through one canonical set of names, those of native DETR's box model: `backbone.0.body...`,
`transformer...`, `input_proj`, `query_embed`, `class_embed`, `bbox_embed`, and `mask_head`, `bbox_attention` on the
same level. The plugin adds the prefix `detr.`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import Enum

import torch
from torch import Tensor

from d2_detr.utils.errors import InputError

StateDict = dict[str, Tensor]

MASK_PARTS = ("mask_head.", "bbox_attention.")
BODY = "backbone.0.body."


class Format(Enum):
    """Layout of a state dict; the value is its name on the command line."""

    PLUGIN = "plugin"
    NATIVE = "native"
    WRAPPER = "wrapper"
    HUGGING_FACE = "hf"
    IMAGENET = "imagenet"

    @property
    def title(self) -> str:
        """Name in messages."""
        return {
            Format.PLUGIN: "this plugin",
            Format.NATIVE: "native DETR",
            Format.WRAPPER: "the official Detectron2 wrapper",
            Format.HUGGING_FACE: "Hugging Face transformers",
            Format.IMAGENET: "torchvision's ImageNet classifiers",
        }[self]


def detect_format(names: Iterable[str]) -> Format:
    """Recognize a layout by the names of its tensors.

    Raises:
        InputError: not a known layout.
    """
    names = {name.removeprefix("module.") for name in names}

    def has(*prefixes: str) -> bool:
        return any(name.startswith(prefixes) for name in names)

    if has("detr.backbone.0.backbone.", "detr.detr.backbone.0.backbone."):
        return Format.WRAPPER
    if has("model.decoder.layers.", "detr.model.decoder.layers."):
        return Format.HUGGING_FACE
    if has("transformer.decoder.layers.") or (has("detr.transformer.decoder.layers.") and has(*MASK_PARTS)):
        return Format.NATIVE
    if has("detr.transformer.decoder.layers."):
        return Format.PLUGIN
    if {"conv1.weight", "layer1.0.conv1.weight"} <= names:
        return Format.IMAGENET
    first = ", ".join(sorted(names)[:3]) or "nothing"
    raise InputError(
        "not a checkpoint of DETR: expected the names of native DETR (transformer.decoder.layers...), this plugin "
        "(detr.transformer...), the official Detectron2 wrapper (detr.backbone.0.backbone...), Hugging Face "
        f"(model.decoder.layers...) or torchvision's ResNets (conv1, layer1...); got {first}, ..."
    )


def to_canonical(state_dict: StateDict, format: Format) -> tuple[StateDict, dict[str, str | None]]:
    """Rename the tensors of a state dict to the canonical names.

    Returns:
        The renamed state dict, and the canonical name of every source key: None if it is not a part of DETR.

    Raises:
        InputError: two keys have the same canonical name, or a query, key or value projection is missing.
    """
    accounts = {name: _TO_CANONICAL[format](name.removeprefix("module.")) for name in state_dict}
    canonical: StateDict = {}
    for name, new_name in accounts.items():
        if new_name in canonical:
            raise InputError(f"{name}: a second tensor for {new_name}")
        if new_name is not None:
            canonical[new_name] = state_dict[name]
    return (_join_projections(canonical) if format is Format.HUGGING_FACE else canonical), accounts


def from_canonical(canonical: StateDict, format: Format, *, detectron2_backbone: bool = False) -> StateDict:
    """Rename the tensors of a state dict from the canonical names to those of `format`.

    Args:
        detectron2_backbone: for the plugin with Detectron2's own ResNet instead of torchvision's.

    Raises:
        InputError: the layout has no name for a part of the model.
    """
    if format is Format.HUGGING_FACE:
        if any(name.startswith("transformer.encoder.norm.") for name in canonical):
            raise InputError("a pre-norm model: Hugging Face's DETR is always post-norm")
        canonical = _split_projections(canonical)
    if detectron2_backbone:
        canonical = {_DETECTRON2_BACKBONE.from_canonical(name) or name: tensor for name, tensor in canonical.items()}
    has_masks = any(name.startswith(MASK_PARTS) for name in canonical)
    return {_FROM_CANONICAL[format](name, has_masks): tensor for name, tensor in canonical.items()}


class NameTable:
    """Renames tensors in both directions.

    Args:
        rows: pairs of prefixes (in the other layout, canonical); `#` stands for a number.
    """

    def __init__(self, rows: Iterable[tuple[str, str]]):
        rows = list(rows)
        self._to_canonical = [(_pattern(theirs), canonical.replace("#", r"\1")) for theirs, canonical in rows]
        self._from_canonical = [(_pattern(canonical), theirs.replace("#", r"\1")) for theirs, canonical in rows]

    def to_canonical(self, name: str) -> str | None:
        """Return the canonical name; None if no row matches."""
        return _rename(name, self._to_canonical)

    def from_canonical(self, name: str) -> str | None:
        """Return the name in the other layout; None if no row matches."""
        return _rename(name, self._from_canonical)


def _pattern(prefix: str) -> re.Pattern[str]:
    return re.compile(re.escape(prefix).replace(re.escape("#"), r"(\d+)"))


def _rename(name: str, rules: list[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, replacement in rules:
        if match := pattern.match(name):
            return match.expand(replacement) + name[match.end() :]
    return None


def _detectron2_resnet() -> Iterable[tuple[str, str]]:
    """Detectron2's names of a ResNet: stages are counted from 2, a norm is a child of its convolution."""
    yield from [("stem.conv1.norm.", "bn1."), ("stem.conv1.", "conv1.")]
    for stage in range(1, 5):
        theirs, ours = f"res{stage + 1}.#.", f"layer{stage}.#."
        for number in range(1, 4):
            yield f"{theirs}conv{number}.norm.", f"{ours}bn{number}."
            yield f"{theirs}conv{number}.", f"{ours}conv{number}."
        yield f"{theirs}shortcut.norm.", f"{ours}downsample.1."
        yield f"{theirs}shortcut.", f"{ours}downsample.0."


def _transformers_resnet() -> Iterable[tuple[str, str]]:
    """Names of Hugging Face's own ResNet, in checkpoints without timm."""
    yield from [("embedder.embedder.convolution.", "conv1."), ("embedder.embedder.normalization.", "bn1.")]
    for stage in range(4):
        theirs, ours = f"encoder.stages.{stage}.layers.#.", f"layer{stage + 1}.#."
        for number in range(3):
            yield f"{theirs}layer.{number}.convolution.", f"{ours}conv{number + 1}."
            yield f"{theirs}layer.{number}.normalization.", f"{ours}bn{number + 1}."
        yield f"{theirs}shortcut.convolution.", f"{ours}downsample.0."
        yield f"{theirs}shortcut.normalization.", f"{ours}downsample.1."


_DETECTRON2_BACKBONE = NameTable(("backbone.0." + theirs, BODY + ours) for theirs, ours in _detectron2_resnet())
_WRAPPER = NameTable(
    [("backbone.0.backbone." + theirs, BODY + ours) for theirs, ours in _detectron2_resnet()]
    + [(part, part) for part in ("transformer.", "input_proj.", "query_embed.", "class_embed.", "bbox_embed.")]
)
_HUGGING_FACE_BODY = "model.backbone.conv_encoder.model."  # timm's ResNet, with torchvision's names
_WITHOUT_TIMM = NameTable((_HUGGING_FACE_BODY + theirs, BODY + ours) for theirs, ours in _transformers_resnet())
# transformers 5 uses the first names in memory and the second in the files that it writes.
_TRANSFORMERS_5 = [("model.backbone.model.", _HUGGING_FACE_BODY), (".o_proj.", ".out_proj."), (".mlp.fc", ".fc")]
_ENCODER, _DECODER = "transformer.encoder.layers.#.", "transformer.decoder.layers.#."
_HUGGING_FACE = NameTable(
    [
        (_HUGGING_FACE_BODY, BODY),
        ("model.input_projection.", "input_proj."),
        ("model.query_position_embeddings.", "query_embed."),
        ("model.encoder.layers.#.self_attn.", _ENCODER + "self_attn."),
        ("model.encoder.layers.#.self_attn_layer_norm.", _ENCODER + "norm1."),
        ("model.encoder.layers.#.fc1.", _ENCODER + "linear1."),
        ("model.encoder.layers.#.fc2.", _ENCODER + "linear2."),
        ("model.encoder.layers.#.final_layer_norm.", _ENCODER + "norm2."),
        ("model.decoder.layers.#.self_attn.", _DECODER + "self_attn."),
        ("model.decoder.layers.#.self_attn_layer_norm.", _DECODER + "norm1."),
        ("model.decoder.layers.#.encoder_attn.", _DECODER + "multihead_attn."),
        ("model.decoder.layers.#.encoder_attn_layer_norm.", _DECODER + "norm2."),
        ("model.decoder.layers.#.fc1.", _DECODER + "linear1."),
        ("model.decoder.layers.#.fc2.", _DECODER + "linear2."),
        ("model.decoder.layers.#.final_layer_norm.", _DECODER + "norm3."),
        ("model.decoder.layernorm.", "transformer.decoder.norm."),
        ("class_labels_classifier.", "class_embed."),
        ("bbox_predictor.", "bbox_embed."),
    ]
)


def _plugin_to_canonical(name: str) -> str | None:
    if not name.startswith("detr."):
        return None
    name = name.removeprefix("detr.")
    return _DETECTRON2_BACKBONE.to_canonical(name) or name


def _wrapper_to_canonical(name: str) -> str | None:
    if not name.startswith("detr."):
        return None
    name = name.removeprefix("detr.")
    return name if name.startswith(MASK_PARTS) else _WRAPPER.to_canonical(name.removeprefix("detr."))


def _hugging_face_to_canonical(name: str) -> str | None:
    if name.startswith(MASK_PARTS):
        return name
    name = name.removeprefix("detr.")
    for in_memory, in_file in _TRANSFORMERS_5:
        name = name.replace(in_memory, in_file)
    return _WITHOUT_TIMM.to_canonical(name) or _HUGGING_FACE.to_canonical(name)


def _imagenet_to_canonical(name: str) -> str | None:
    return None if name.startswith("fc.") else BODY + name


_TO_CANONICAL: dict[Format, Callable[[str], str | None]] = {
    Format.PLUGIN: _plugin_to_canonical,
    Format.NATIVE: lambda name: name.removeprefix("detr."),
    Format.WRAPPER: _wrapper_to_canonical,
    Format.HUGGING_FACE: _hugging_face_to_canonical,
    Format.IMAGENET: _imagenet_to_canonical,
}


def _native_name(name: str, has_masks: bool) -> str:
    """Native DETR puts the box model under `detr.` only if the model has a mask head."""
    return f"detr.{name}" if has_masks and not name.startswith(MASK_PARTS) else name


def _wrapper_name(name: str, has_masks: bool) -> str:
    return "detr." + _native_name(_rename_or_raise(name, _WRAPPER, Format.WRAPPER), has_masks)


def _hugging_face_name(name: str, has_masks: bool) -> str:
    return _native_name(_rename_or_raise(name, _HUGGING_FACE, Format.HUGGING_FACE), has_masks)


def _rename_or_raise(name: str, table: NameTable, format: Format) -> str:
    if name.startswith(MASK_PARTS):
        return name
    new_name = table.from_canonical(name)
    if new_name is None:
        raise InputError(f"{name}: the layout of {format.title} has no name for it")
    return new_name


_FROM_CANONICAL: dict[Format, Callable[[str, bool], str]] = {
    Format.PLUGIN: lambda name, _: f"detr.{name}",
    Format.NATIVE: _native_name,
    Format.WRAPPER: _wrapper_name,
    Format.HUGGING_FACE: _hugging_face_name,
}
WRITABLE_FORMATS = tuple(_FROM_CANONICAL)

# Queries, keys and values: three layers in Hugging Face's layout, one in torch's MultiheadAttention.
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def _join_projections(canonical: StateDict) -> StateDict:
    joined: StateDict = {}
    for name, tensor in canonical.items():
        attention, _, rest = name.partition("q_proj.")
        if rest and attention.endswith("attn."):
            parts = [f"{attention}{projection}.{rest}" for projection in _PROJECTIONS]
            if missing := [part for part in parts if part not in canonical]:
                raise InputError(f"{missing[0]} is missing, but {name} is present")
            joined[f"{attention}in_proj_{rest}"] = torch.cat([canonical[part] for part in parts])
        elif not any(f"attn.{projection}." in name for projection in _PROJECTIONS):
            joined[name] = tensor
    return joined


def _split_projections(canonical: StateDict) -> StateDict:
    split: StateDict = {}
    for name, tensor in canonical.items():
        attention, _, rest = name.partition("in_proj_")
        if rest:
            for projection, part in zip(_PROJECTIONS, tensor.chunk(3), strict=True):
                split[f"{attention}{projection}.{rest}"] = part
        else:
            split[name] = tensor
    return split
