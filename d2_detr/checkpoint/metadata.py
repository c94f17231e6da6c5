"""What a checkpoint says about its model besides the weights, in any layout."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from d2_detr.checkpoint import hugging_face
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError


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
        InputError: malformed label map or config.
    """
    label_map = LabelMap.from_dict(content["label_map"]) if "label_map" in content else None
    if config := content.get("hugging_face"):
        return Metadata(
            label_map or hugging_face.label_map_from_config(config),
            config.get("encoder_attention_heads"),
            config.get("dilation"),
            hugging_face.test_sizes_from_processor(content.get("hugging_face_processor", {})),
            warning=hugging_face.AUXILIARY_LOSS_WARNING if config.get("auxiliary_loss") else "",
        )
    if isinstance(args := content.get("args"), argparse.Namespace):
        return Metadata(label_map, getattr(args, "nheads", None), getattr(args, "dilation", None))
    if "config" in content:
        try:
            config = yaml.safe_load(content["config"])
            model, sizes = config["MODEL"], config.get("INPUT", {})
            return Metadata(
                label_map,
                model["DETR"]["NHEADS"],
                model["RESNETS"]["RES5_DILATION"] == 2,
                (sizes["MIN_SIZE_TEST"], sizes["MAX_SIZE_TEST"]) if sizes else None,
                content["config"],
                content.get("threshold"),
            )
        except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"config of the checkpoint: not a config of this plugin ({error!r})") from error
    return Metadata(label_map)
