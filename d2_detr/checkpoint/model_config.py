"""The config and the classes of a trained model, from its checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from d2_detr.checkpoint.adapt import QUERIES
from d2_detr.checkpoint.architecture import Architecture, infer_architecture
from d2_detr.checkpoint.checkpointer import BEST, LAST
from d2_detr.checkpoint.class_head import AmbiguousClassHead, read_head
from d2_detr.checkpoint.convert import CLASS_HEAD
from d2_detr.checkpoint.fields import shown
from d2_detr.checkpoint.layouts import Format, StateDict, detect_format, to_canonical
from d2_detr.checkpoint.metadata import Metadata, parse_config
from d2_detr.checkpoint.read import Checkpoint, read_checkpoint
from d2_detr.checkpoint.write import DEFAULT_HEADS
from d2_detr.config import config_path, load_config, merge_options
from d2_detr.modeling.backbone import DEPTHS, build_torchvision_resnet_backbone
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError, error_context, one_line

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

logger = logging.getLogger(__name__)

# The sections of a training's config that describe the model. The others describe its data and its machine.
SECTIONS = ("MODEL", "INPUT")
DEFAULT_THRESHOLD = 0.7  # of native DETR's notebooks


def model_config(
    checkpoint: Checkpoint, opts: Sequence[Any] = (), *, to_train: bool = False
) -> tuple[CfgNode, LabelMap | None]:
    """Return the config that builds the model of a checkpoint, and its named classes.

    Checkpoints of this plugin contain their config. For other layouts, sizes are inferred from the tensors, and other
    keys are those of the published models. Attention heads and dilation (DC5) come from the metadata; without these,
    8 heads, and dilation only if the name of the checkpoint contains "dc5", as those of the published ones do.

    Args:
        opts: KEY VALUE pairs that override what the checkpoint says.
        to_train: class head and queries may be missing; without a class head the classes are None.

    Raises:
        InputError: not a complete DETR, a config of another project, or an unknown key in `opts`.
    """
    with error_context(checkpoint.name):
        return _model_config(checkpoint, opts, to_train=to_train)


def _model_config(checkpoint: Checkpoint, opts: Sequence[Any], *, to_train: bool) -> tuple[CfgNode, LabelMap | None]:
    format, metadata = detect_format(checkpoint.state_dict), checkpoint.metadata
    if format is Format.IMAGENET:
        raise InputError(
            "not a complete DETR, but ImageNet weights of a backbone. Fine-tune a trained model such as detr://r50, or "
            "use them as MODEL.WEIGHTS of train_net.py to train from scratch"
        )
    canonical, _ = to_canonical(checkpoint.state_dict, format)
    architecture = infer_architecture(canonical)
    missing = [name for name in (*CLASS_HEAD, QUERIES) if name not in canonical]
    if missing and not to_train:
        raise InputError(f"{missing[0]} is missing: train the model before you use it")
    label_map = None if missing else _label_map(canonical, format, metadata.label_map)
    if metadata.config:
        saved = parse_config(metadata.config)
    else:
        is_dc5 = "dc5" in Path(checkpoint.name).name.lower()
        saved = _inferred_config(architecture, metadata, label_map, default_dilation=is_dc5)
    cfg = load_config("Base-DETR.yaml", [])
    device = cfg.MODEL.DEVICE  # this machine may lack the device of the training
    with _config_errors("config of the checkpoint"):
        cfg.merge_from_other_cfg(type(cfg)({section: saved.get(section, {}) for section in SECTIONS}))
        _check_saved(cfg, architecture)
    cfg.MODEL.DEVICE = device
    cfg.MODEL.DETR.FROZEN_WEIGHTS = ""
    if label_map:
        cfg.MODEL.DETR.NUM_CLASSES = len(label_map)
    _check_buildable(cfg)
    merge_options(cfg, opts)
    cfg.MODEL.WEIGHTS = checkpoint.name
    return cfg, label_map


@contextmanager
def _config_errors(where: str) -> Iterator[None]:
    """Turn the errors of a merge into one about the user's file or options."""
    try:
        yield
    # The last three are those of ast.literal_eval, with which values are parsed.
    except (KeyError, ValueError, AssertionError, AttributeError, TypeError, RecursionError, MemoryError) as error:
        raise InputError(f"{where}: {one_line(error)}") from error


def _check_saved(cfg: CfgNode, architecture: Architecture) -> None:
    """Check that a model of the saved config is that of the tensors, so that building it needs no more memory."""
    model, detr = cfg.MODEL, cfg.MODEL.DETR
    depth = architecture.depth if architecture.stages == 4 else None  # that of a truncated backbone is not certain
    sizes = {
        "MODEL.META_ARCHITECTURE": (model.META_ARCHITECTURE, "Detr"),
        "MODEL.RESNETS.DEPTH": (model.RESNETS.DEPTH, depth or model.RESNETS.DEPTH),
        "MODEL.DETR.HIDDEN_DIM": (detr.HIDDEN_DIM, architecture.hidden_dim),
        "MODEL.DETR.DIM_FEEDFORWARD": (detr.DIM_FEEDFORWARD, architecture.dim_feedforward),
        "MODEL.DETR.ENC_LAYERS": (detr.ENC_LAYERS, architecture.encoder_layers),
        "MODEL.DETR.DEC_LAYERS": (detr.DEC_LAYERS, architecture.decoder_layers),
        "MODEL.DETR.NUM_OBJECT_QUERIES": (
            detr.NUM_OBJECT_QUERIES, architecture.num_queries or detr.NUM_OBJECT_QUERIES,
        ),
        "the length of MODEL.PIXEL_MEAN": (len(model.PIXEL_MEAN), 3),
        "the length of MODEL.PIXEL_STD": (len(model.PIXEL_STD), 3),
    }  # fmt: skip
    for name, (saved, expected) in sizes.items():
        if saved != expected:
            raise InputError(f"{name} is {shown(saved)}, but the checkpoint is a model with {expected}")
    if detr.HIDDEN_DIM % detr.NHEADS:
        raise InputError(f"MODEL.DETR.NHEADS {detr.NHEADS} does not divide HIDDEN_DIM {detr.HIDDEN_DIM}")


def _check_buildable(cfg: CfgNode) -> None:
    """Check that a model can be built, without memory."""
    cfg = cfg.clone()
    cfg.MODEL.DETR.NUM_CLASSES = max(cfg.MODEL.DETR.NUM_CLASSES, 1)  # -1 is counted later
    try:
        with torch.device("meta"):
            META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    except Exception as error:  # each module refuses values in its own way
        reason = one_line(error) or type(error).__name__
        raise InputError(f"config of the checkpoint: no model can be built from it: {reason}") from error


def load_trained_config(config_file: str, opts: Sequence[object], data: str = "") -> CfgNode:
    """Load the config to evaluate a trained model on a dataset, from a file or from the checkpoint.

    The config.yaml of a training names the weights that it started from. Without MODEL.WEIGHTS in `opts`, its best
    model is used instead, or else its last; results go to its folder, wherever that was moved.

    Args:
        config_file: see `load_config`; "" uses the config of MODEL.WEIGHTS in `opts`.
        opts: KEY VALUE pairs.
        data: folder of a custom dataset, or "".

    Raises:
        InputError: no model or no dataset is given; see also `load_config` and `model_config`.
        FileNotFoundError, ConnectionError: the weights cannot be read.
    """
    weights = str(dict(zip(opts[::2], opts[1::2], strict=False)).get("MODEL.WEIGHTS", ""))
    if config_file:
        cfg = load_config(config_file, [*_trained_options(config_path(config_file)), *opts], data)
    elif weights:
        # The classes of a custom dataset are counted; a model of another number is refused later.
        counted = ["MODEL.DETR.NUM_CLASSES", -1, "MODEL.DETR.STUFF_CLASSES", ()] if data else []
        model, _ = model_config(read_checkpoint(weights), [*counted, *opts])
        cfg = load_config("Base-DETR.yaml", ["MODEL.DETR.PANOPTIC_ON", model.MODEL.DETR.PANOPTIC_ON, *opts], data)
        model.MODEL.DEVICE = cfg.MODEL.DEVICE
        for section in SECTIONS:
            cfg[section] = model[section]
    else:
        raise InputError("no model is given: add --weights FILE, or --config FILE of a training")
    if not cfg.MODEL.WEIGHTS:
        raise InputError(f"{config_file} has no MODEL.WEIGHTS: add --weights FILE")
    if not cfg.DATASETS.TEST:
        raise InputError("no dataset is given: add --data FOLDER, or DATASETS.TEST at the end of the command")
    return cfg


def _trained_options(config_file: Path) -> list[str]:
    """Return MODEL.WEIGHTS and OUTPUT_DIR, if the file is the config.yaml of a training that has saved a model."""
    models = [config_file.parent / f"{name}.pth" for name in (BEST, "model_final", LAST)]
    saved = [str(path) for path in models if path.is_file()]
    if not saved or config_file.name != "config.yaml":
        return []
    return ["MODEL.WEIGHTS", saved[0], "OUTPUT_DIR", str(config_file.parent)]


def default_threshold(checkpoint: Checkpoint | None) -> float:
    """Return the minimum score of detections to show: the one with the best F1 in validation, if it is known."""
    known = checkpoint.metadata.threshold if checkpoint else None
    return DEFAULT_THRESHOLD if known is None else known


def converted_metadata(checkpoint: Checkpoint, label_map: LabelMap | None, opts: Sequence[Any] = ()) -> Metadata:
    """Return the metadata of a converted checkpoint, which is as complete as that of its source.

    Args:
        checkpoint: the source.
        label_map: the classes after the conversion; None without a class head.
        opts: KEY VALUE pairs that override what the source says.
    """
    known = checkpoint.metadata
    canonical, _ = to_canonical(checkpoint.state_dict, detect_format(checkpoint.state_dict))
    if not known.config and infer_architecture(canonical).depth is None:
        return replace(known, label_map=label_map)  # no config describes this backbone
    cfg, old_label_map = model_config(checkpoint, opts, to_train=True)
    same_classes = label_map is not None and old_label_map is not None and label_map.names == old_label_map.names
    if not same_classes:
        cfg.MODEL.DETR.PANOPTIC_ON, cfg.MODEL.DETR.STUFF_CLASSES = False, ()  # these refer to the old classes
    cfg.MODEL.DETR.NUM_CLASSES = len(label_map) if label_map else -1
    cfg.MODEL.WEIGHTS = ""
    resnets = cfg.MODEL.RESNETS
    if not resnets.STRIDE_IN_1X1 and resnets.RES5_DILATION == 1 and resnets.DEPTH in DEPTHS:
        # Detectron2's own ResNet then equals torchvision's, whose names the converted tensors have.
        cfg.MODEL.BACKBONE.NAME = build_torchvision_resnet_backbone.__name__
    return Metadata(
        label_map,
        cfg.MODEL.DETR.NHEADS,
        resnets.RES5_DILATION == 2,
        (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST),
        type(cfg)({section: cfg[section] for section in SECTIONS}).dump(),
        known.threshold if same_classes else None,
    )


def _label_map(canonical: StateDict, format: Format, known: LabelMap | None) -> LabelMap:
    """Return the classes as the class head is read when the model is loaded; unnamed ones are named by their id."""
    weight, bias = (canonical[name] for name in CLASS_HEAD)
    try:
        head, _ = read_head(weight, bias, format, label_map=known)
    except AmbiguousClassHead:
        # Row = category id in both readings, and an unused row 0 detects nothing.
        head, _ = read_head(weight, bias, format, first_class_id=0)
    ids = head.label_map.ids
    return LabelMap(ids, head.label_map.names or tuple(f"class {category_id}" for category_id in ids))


def _inferred_config(
    architecture: Architecture, metadata: Metadata, label_map: LabelMap | None, *, default_dilation: bool
) -> dict[str, Any]:
    """Return the difference of a model's config to Base-DETR.yaml."""
    if architecture.depth is None:
        raise InputError(f"the backbone is {architecture.backbone}, and the checkpoint has no config of this plugin")
    masks = architecture.mask_head
    num_heads = masks.num_heads if masks else metadata.num_heads
    dilation = default_dilation if metadata.dilation is None else metadata.dilation
    if num_heads is None or metadata.dilation is None:
        logger.info(
            "Incomplete metadata: assuming %d attention heads and a backbone %s dilation (DC5)",
            num_heads or DEFAULT_HEADS, "with" if dilation else "without",
        )  # fmt: skip
    is_coco_panoptic = label_map is not None and label_map.ids == LabelMap.coco_panoptic().ids
    stuff_classes = range(len(LabelMap.coco()), len(LabelMap.coco_panoptic()))  # after the things
    queries = {"NUM_OBJECT_QUERIES": architecture.num_queries} if architecture.num_queries else {}
    return {
        "INPUT": dict(zip(("MIN_SIZE_TEST", "MAX_SIZE_TEST"), metadata.test_sizes or (), strict=False)),
        "MODEL": {
            "MASK_ON": masks is not None,
            "RESNETS": {
                "DEPTH": architecture.depth,
                "OUT_FEATURES": [f"res{architecture.stages + 1}"],
                "RES5_DILATION": 2 if dilation else 1,
            },
            "DETR": {
                "HIDDEN_DIM": architecture.hidden_dim,
                "NHEADS": num_heads or DEFAULT_HEADS,
                "DIM_FEEDFORWARD": architecture.dim_feedforward,
                "ENC_LAYERS": architecture.encoder_layers,
                "DEC_LAYERS": architecture.decoder_layers,
                "PRE_NORM": architecture.pre_norm,
                **queries,
                "PANOPTIC_ON": is_coco_panoptic and masks is not None,
                "STUFF_CLASSES": tuple(stuff_classes) if is_coco_panoptic else (),
            },
        },
    }
