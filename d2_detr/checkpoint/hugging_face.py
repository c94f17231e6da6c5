"""Folders of Hugging Face transformers: config.json and model.safetensors."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from d2_detr.checkpoint.architecture import Architecture
from d2_detr.checkpoint.fields import read_field, shown
from d2_detr.checkpoint.layouts import StateDict
from d2_detr.checkpoint.save import save_safetensors
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError, error_context
from d2_detr.utils.files import atomic_write, read_json

CONFIG = "config.json"
PROCESSOR = "preprocessor_config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_OLD = "pytorch_model.bin"
UNUSED_LABEL = "N/A"  # of rows without a class
AUXILIARY_LOSS_WARNING = (
    "trained with auxiliary_loss: transformers then normalizes the states between decoder layers, unlike DETR, so "
    "detections differ from those of transformers"
)
DEFAULT_TEST_SIZES = (800, 1333)  # shortest and maximum longest edge of the published models
# DETR's normalization for AutoImageProcessor; do_resize and size are added.
_PROCESSING = {
    "image_processor_type": "DetrImageProcessor",
    "format": "coco_detection",
    "do_rescale": True,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "do_pad": True,
}


def weights_file(folder: Path) -> Path:
    """Return the file with the weights in a folder of transformers.

    Raises:
        InputError: there is none.
    """
    for name in (WEIGHTS, WEIGHTS_OLD):
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"{folder}: neither {WEIGHTS} nor {WEIGHTS_OLD} is in this folder; if it is of a training, give model_best.pth"
    )


def read_configs(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the configs of the model and its image processor; {} for a missing file.

    Raises:
        InputError: malformed file, or another model than DETR.
    """
    config = _read(folder / CONFIG)
    if config and config.get("model_type") != "detr":
        raise InputError(f"{folder / CONFIG}: model_type is {shown(config.get('model_type'))}, expected 'detr'")
    return {"hugging_face": config, "hugging_face_processor": _read(folder / PROCESSOR)}


def _read(path: Path) -> dict[str, Any]:
    content = read_json(path) if path.is_file() else {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a config")
    return content


def test_sizes_from_processor(processor: dict[str, Any]) -> tuple[int, int] | None:
    """Return the shortest and maximum longest edge of images; None if the processor resizes differently.

    Raises:
        InputError: a field has another type or an impossible value.
    """
    where = f"{PROCESSOR}: "
    if read_field(processor, "do_resize", bool, where=where) is False:
        return 0, DEFAULT_TEST_SIZES[1]
    if isinstance(processor.get("size"), int):  # transformers before 4.27
        size = {"shortest_edge": processor["size"], "longest_edge": processor.get("max_size")}
    else:
        size = read_field(processor, "size", dict, where=where) or {}
    shortest, longest = (
        read_field(size, f"{edge}_edge", int, where=f"{where}size: ") for edge in ("shortest", "longest")
    )
    return None if shortest is None or longest is None else (shortest, longest)


def label_map_from_config(config: dict[str, Any]) -> LabelMap | None:
    """Return the classes in `id2label`, whose ids are rows of the class head; None without names.

    With contiguous rows, this project stores the category ids of the annotations under `category_ids`.

    Raises:
        InputError: a field has another type or an impossible value.
    """
    labels = {}
    for row, name in (read_field(config, "id2label", dict, where=f"{CONFIG}: ") or {}).items():
        if not re.fullmatch("[0-9]{1,9}", str(row)) or not isinstance(name, str | int):
            raise InputError(f"{CONFIG}: id2label: expected a row with its class, got {shown(row)}: {shown(name)}")
        labels[int(row)] = str(name)
    labels = {row: name for row, name in sorted(labels.items()) if name not in (UNUSED_LABEL, f"LABEL_{row}")}
    if not labels:
        return None
    ids = read_field(config, "category_ids", list, where=f"{CONFIG}: ") or list(labels)
    with error_context(CONFIG):
        return LabelMap.from_dict({"ids": ids, "names": list(labels.values())})


def write_folder(
    folder: Path,
    state_dict: StateDict,
    architecture: Architecture,
    label_map: LabelMap | None,
    *,
    num_heads: int,
    dilation: bool,
    test_sizes: tuple[int, int],
) -> None:
    """Write a state dict in Hugging Face's layout with the configs that `from_pretrained` needs.

    Raises:
        InputError: the backbone is not supported by Hugging Face's DETR.
    """
    if architecture.depth is None or architecture.stages < 4:
        raise InputError(f"Hugging Face's DETR needs a complete ResNet; this backbone is {architecture.backbone}")
    resize = bool(test_sizes[0])  # Detectron2 does not resize images if it is 0
    size = dict(zip(("shortest_edge", "longest_edge"), test_sizes if resize else DEFAULT_TEST_SIZES, strict=True))
    # The old files are replaced when all new ones are written.
    with atomic_write(folder / CONFIG) as config, atomic_write(folder / PROCESSOR) as processor:
        config.write_text(json.dumps(_config(architecture, label_map, num_heads, dilation)), encoding="utf-8")
        processor.write_text(json.dumps(_PROCESSING | {"do_resize": resize, "size": size}), encoding="utf-8")
        save_safetensors(state_dict, folder / WEIGHTS, {"format": "pt"})


def _config(a: Architecture, label_map: LabelMap | None, num_heads: int, dilation: bool) -> dict[str, Any]:
    config = {
        "model_type": "detr",
        "architectures": ["DetrForSegmentation" if a.mask_head else "DetrForObjectDetection"],
        "use_timm_backbone": True,
        "backbone": f"resnet{a.depth}",
        "use_pretrained_backbone": False,
        "dilation": dilation,
        "d_model": a.hidden_dim,
        "num_queries": a.num_queries,
        "encoder_layers": a.encoder_layers,
        "encoder_ffn_dim": a.dim_feedforward,
        "encoder_attention_heads": num_heads,
        "decoder_layers": a.decoder_layers,
        "decoder_ffn_dim": a.dim_feedforward,
        "decoder_attention_heads": num_heads,
    }
    if a.class_rows is None:
        return config
    labels = [f"LABEL_{row}" for row in range(a.class_rows - 1)]
    if label_map and label_map.names:
        by_id = len(label_map) < len(labels)
        rows = label_map.ids if by_id else range(len(label_map))
        named = dict(zip(rows, label_map.names, strict=True))
        labels = [named.get(row, UNUSED_LABEL) for row in range(len(labels))]
        if not by_id:
            config["category_ids"] = list(label_map.ids)
    config["id2label"] = {str(row): name for row, name in enumerate(labels)}
    config["label2id"] = {name: row for row, name in enumerate(labels) if name != UNUSED_LABEL}
    return config
