"""What lies beside the weights in a checkpoint, whoever wrote it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import yaml

from d2_detr.checkpoint import hugging_face
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError


@dataclass(frozen=True)
class Metadata:
    """The classes of the head, and what leaves no trace in a state dict. None: the checkpoint does not tell.

    Args:
        test_sizes: length in pixels of a picture's short edge in evaluation, and the most of its long one.
        config: this plugin's config of the model, as YAML.
        threshold: the score with the best F1 on the pictures that the model was validated with.
        warning: a sentence on what a conversion cannot keep.
    """

    label_map: LabelMap | None = None
    num_heads: int | None = None
    dilation: bool | None = None
    test_sizes: tuple[int, int] | None = None
    config: str = ""
    threshold: float | None = None
    warning: str = ""


def checkpoint_metadata(checkpoint: dict[str, Any]) -> Metadata:
    """From native DETR's command line, this plugin's config and label map, or Hugging Face's config.

    Raises:
        InputError: a label map or config that is not what its writer writes.
    """
    label_map = LabelMap.from_dict(checkpoint["label_map"]) if "label_map" in checkpoint else None
    if config := checkpoint.get("hugging_face"):
        return Metadata(
            label_map or hugging_face.label_map_from_config(config),
            config.get("encoder_attention_heads"),
            config.get("dilation"),
            hugging_face.test_sizes_from_processor(checkpoint.get("hugging_face_processor", {})),
            warning=hugging_face.AUXILIARY_LOSS if config.get("auxiliary_loss") else "",
        )
    if isinstance(args := checkpoint.get("args"), argparse.Namespace):
        return Metadata(label_map, getattr(args, "nheads", None), getattr(args, "dilation", None))
    if "config" in checkpoint:
        try:
            config = yaml.safe_load(checkpoint["config"])
            model, sizes = config["MODEL"], config.get("INPUT", {})
            return Metadata(
                label_map,
                model["DETR"]["NHEADS"],
                model["RESNETS"]["RES5_DILATION"] == 2,
                (sizes["MIN_SIZE_TEST"], sizes["MAX_SIZE_TEST"]) if sizes else None,
                checkpoint["config"],
                checkpoint.get("threshold"),
            )
        except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"config of the checkpoint: not a config of this plugin ({error!r})") from error
    return Metadata(label_map)
