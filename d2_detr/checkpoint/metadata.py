"""What a checkpoint says about its model besides the weights, in any layout."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from d2_detr.checkpoint import hugging_face
from d2_detr.checkpoint.fields import read_field, shown
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError, one_line

MAX_CONFIG_CHARACTERS = 200_000  # a config has about 7,000


@dataclass(frozen=True)
class Metadata:
    """Classes and settings that leave no trace in a state dict; None if the checkpoint does not have them.

    Args:
        label_map: classes of the class head.
        num_heads: attention heads.
        dilation: whether the last stage of the backbone is dilated (DC5).
        test_sizes: shortest and maximum longest edge of images in evaluation, in pixels.
        config: this plugin's config of the model, as YAML.
        threshold: score with the best F1 on the validation images.
        warning: a sentence on what a conversion cannot preserve.
    """

    label_map: LabelMap | None = None
    num_heads: int | None = None
    dilation: bool | None = None
    test_sizes: tuple[int, int] | None = None
    config: str = ""
    threshold: float | None = None
    warning: str = ""


def checkpoint_metadata(content: Mapping[str, Any]) -> Metadata:
    """Parse native DETR's arguments, this plugin's config and label map, or Hugging Face's configs.

    Args:
        content: the stored dictionary; Hugging Face's configs under `hugging_face` and `hugging_face_processor`.

    Raises:
        InputError: a field has another type or an impossible value; the message names it.
    """
    label_map = LabelMap.from_dict(content["label_map"]) if "label_map" in content else None
    if config := read_field(content, "hugging_face", dict):
        where = f"{hugging_face.CONFIG}: "
        has_auxiliary_loss = read_field(config, "auxiliary_loss", bool, where=where)
        return Metadata(
            label_map or hugging_face.label_map_from_config(config),
            read_field(config, "encoder_attention_heads", int, where=where, lowest=1),
            read_field(config, "dilation", bool, where=where),
            hugging_face.test_sizes_from_processor(read_field(content, "hugging_face_processor", dict) or {}),
            warning=hugging_face.AUXILIARY_LOSS_WARNING if has_auxiliary_loss else "",
        )
    if isinstance(args := content.get("args"), argparse.Namespace):
        values, where = vars(args), "args of the checkpoint: "
        num_heads = read_field(values, "nheads", int, where=where, lowest=1)
        return Metadata(label_map, num_heads, read_field(values, "dilation", bool, where=where))
    if "config" in content:
        return _plugin_metadata(content, label_map)
    return Metadata(label_map)


def parse_config(text: object) -> dict[str, Any]:
    """Parse the config in a checkpoint of this plugin.

    Raises:
        InputError: not such a config.
    """
    if not isinstance(text, str) or len(text) > MAX_CONFIG_CHARACTERS:
        raise InputError(f"config of the checkpoint: expected text of at most {MAX_CONFIG_CHARACTERS:,} characters")
    try:
        config = yaml.load(text, _Loader)  # nosec B506  # derived from SafeLoader
    except Exception as error:  # PyYAML raises many kinds for values such as `!!bool 5` or 2024-99-99
        raise InputError(f"config of the checkpoint: not a config of this plugin ({one_line(error)})") from error
    if not isinstance(config, dict):
        raise InputError(f"config of the checkpoint: not a config of this plugin, but {shown(config)}")
    return config


def _plugin_metadata(content: Mapping[str, Any], label_map: LabelMap | None) -> Metadata:
    where = "config of the checkpoint: "

    def section(parent: Mapping[str, Any], name: str) -> dict[str, Any]:
        found = read_field(parent, name, dict, where=where)
        if found is None:
            raise InputError(f"{where}not a config of this plugin, {name} is missing")
        return found

    config = parse_config(content["config"])
    model, sizes = section(config, "MODEL"), read_field(config, "INPUT", dict, where=where) or {}
    num_heads = read_field(section(model, "DETR"), "NHEADS", int, where=where, lowest=1)
    dilation = read_field(section(model, "RESNETS"), "RES5_DILATION", int, where=where, lowest=1)
    if num_heads is None or dilation is None:
        raise InputError(f"{where}not a config of this plugin, NHEADS or RES5_DILATION is missing")
    shortest, longest = (read_field(sizes, f"{size}_SIZE_TEST", int, where=where) for size in ("MIN", "MAX"))
    return Metadata(
        label_map,
        num_heads,
        dilation == 2,
        None if shortest is None or longest is None else (shortest, longest),
        content["config"],
        read_field(content, "threshold", float),
    )


class _Loader(yaml.SafeLoader):
    """A loader that does not let a short text stand for a long one."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        if is_alias and not all(isinstance(part, yaml.ScalarNode) for part in parts):
            raise yaml.YAMLError("it repeats a part by reference")
        return node
