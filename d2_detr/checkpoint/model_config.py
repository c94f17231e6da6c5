"""The config and the classes of a trained model, from its checkpoint alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from d2_detr.checkpoint.adapt import QUERIES
from d2_detr.checkpoint.architecture import Architecture, infer_architecture
from d2_detr.checkpoint.checkpointer import BEST
from d2_detr.checkpoint.class_head import AmbiguousClassHead, read_head
from d2_detr.checkpoint.convert import CLASS_HEAD
from d2_detr.checkpoint.layouts import Format, StateDict, detect_format, to_canonical
from d2_detr.checkpoint.metadata import Metadata, checkpoint_metadata
from d2_detr.checkpoint.read import read_checkpoint
from d2_detr.checkpoint.weights import local_weights
from d2_detr.checkpoint.write import DEFAULT_HEADS
from d2_detr.config.keys import config_path
from d2_detr.modeling.backbone import DEPTHS, build_torchvision_resnet_backbone
from d2_detr.structures.label_map import LabelMap
from d2_detr.utils.errors import InputError, error_context
from d2_detr.workflows.setup import load_config

from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

# Of a training's config what decides about predictions; the rest is of its data and its machine.
SECTIONS = ("MODEL", "INPUT")
DEFAULT_THRESHOLD = 0.7  # as native DETR's notebooks have it


def config_of(weights: str, opts: Sequence[str] = (), *, to_train: bool = False) -> tuple[CfgNode, LabelMap | None]:
    """The config that builds the model of a checkpoint, with MODEL.WEIGHTS set, and its classes with their names.

    The checkpoints of this plugin hold theirs. Of another layout the sizes follow from the tensors, and the rest is
    that of the published models. What leaves no trace in tensors is taken from what lies beside them; else it is 8
    attention heads, and no dilation (DC5) unless the file name has "dc5" in it, as the published ones do.

    Args:
        weights: whatever MODEL.WEIGHTS takes: a path, an https address, a name as detr://r50.
        opts: KEY VALUE pairs that win over what the checkpoint says.
        to_train: class head and queries may be missing; without a head the classes are None.

    Raises:
        FileNotFoundError, ConnectionError, InputError: it cannot be had or read, is not a whole DETR, or has another
            config than this plugin's; or a key of `opts` does not exist.
    """
    file = local_weights(weights)
    checkpoint = read_checkpoint(file)
    with error_context(weights):
        cfg, label_map = _described(checkpoint, file, opts, to_train=to_train)
    cfg.MODEL.WEIGHTS = weights
    return cfg, label_map


def load_trained_config(config_file: str, opts: Sequence[str], data: str = "") -> CfgNode:
    """The config for a trained model at work on a dataset: that of load_config, or of the checkpoint without a file.

    Where `opts` do not name MODEL.WEIGHTS, and the file is the config.yaml of a training, its best model is meant, or
    the last where none is the best: the file itself names the weights that the training began with.

    Raises:
        InputError: nothing says which model, or which data.
        FileNotFoundError, ConnectionError, InputError: see load_config and config_of.
    """
    weights = dict(zip(opts[::2], opts[1::2], strict=False)).get("MODEL.WEIGHTS")
    if config_file:
        cfg = load_config(config_file, [*([] if weights else _trained_beside(config_path(config_file))), *opts], data)
    elif weights:
        # The classes of other data are counted; a model of another number is refused.
        counted = ["MODEL.DETR.NUM_CLASSES", -1, "MODEL.DETR.STUFF_CLASSES", ()] if data else []
        model, _ = config_of(weights, [*counted, *opts])
        cfg = load_config("Base-DETR.yaml", ["MODEL.DETR.PANOPTIC_ON", model.MODEL.DETR.PANOPTIC_ON, *opts], data)
        model.MODEL.DEVICE = cfg.MODEL.DEVICE
        for section in SECTIONS:
            cfg[section] = model[section]
    else:
        raise InputError("there is no model: give --config FILE, or MODEL.WEIGHTS FILE at the end of the command")
    if not cfg.DATASETS.TEST:
        raise InputError("there are no pictures: give --data FOLDER, or DATASETS.TEST at the end of the command")
    return cfg


def default_threshold(weights: str) -> float:
    """The least score of what is shown of a model's predictions: the one with the best F1 on the pictures that it was
    validated with, where its checkpoint (whatever MODEL.WEIGHTS takes) tells it.

    Raises:
        FileNotFoundError, ConnectionError, InputError: it cannot be had or read.
    """
    known = checkpoint_metadata(read_checkpoint(local_weights(weights))).threshold if weights else None
    return DEFAULT_THRESHOLD if known is None else known


def _trained_beside(config_file: Path) -> list[str]:
    """MODEL.WEIGHTS as options, of the training that wrote the file, if it did and has come so far."""
    models = [config_file.parent / f"{name}.pth" for name in (BEST, "model_final")]
    found = next((path for path in models if path.is_file()), None)
    return ["MODEL.WEIGHTS", str(found)] if found and config_file.name == "config.yaml" else []


def converted_metadata(
    checkpoint: dict[str, Any], file: Path, label_map: LabelMap | None, opts: Sequence[str] = ()
) -> Metadata:
    """What a converted checkpoint is to tell of its model, which then needs no more to be built than the source did.

    Args:
        checkpoint: the source, as read_checkpoint read it from `file`.
        label_map: the classes after the conversion; None without a class head.
        opts: KEY VALUE pairs that win over what the source says.
    """
    known = checkpoint_metadata(checkpoint)
    common, _ = to_canonical(checkpoint["model"], detect_format(checkpoint["model"]))
    if not known.config and infer_architecture(common).depth is None:
        return replace(known, label_map=label_map)  # a backbone that no config here describes
    cfg, old_label_map = _described(checkpoint, file, opts, to_train=True)
    as_before = label_map is not None and old_label_map is not None and label_map.names == old_label_map.names
    if not as_before:
        cfg.MODEL.DETR.PANOPTIC_ON, cfg.MODEL.DETR.STUFF_CLASSES = False, ()  # which were of the old classes
    cfg.MODEL.DETR.NUM_CLASSES = len(label_map) if label_map else -1
    cfg.MODEL.WEIGHTS = ""
    resnets = cfg.MODEL.RESNETS
    if not resnets.STRIDE_IN_1X1 and resnets.RES5_DILATION == 1 and resnets.DEPTH in DEPTHS:
        # Detectron2's own ResNet is then torchvision's, under whose names the tensors are written.
        cfg.MODEL.BACKBONE.NAME = build_torchvision_resnet_backbone.__name__
    model, sizes = cfg.MODEL, cfg.INPUT
    return Metadata(
        label_map,
        model.DETR.NHEADS,
        model.RESNETS.RES5_DILATION == 2,
        (sizes.MIN_SIZE_TEST, sizes.MAX_SIZE_TEST),
        type(cfg)({section: cfg[section] for section in SECTIONS}).dump(),
        known.threshold if as_before else None,
    )


def _described(
    checkpoint: dict[str, Any], file: Path, opts: Sequence[str], *, to_train: bool
) -> tuple[CfgNode, LabelMap | None]:
    """See config_of."""
    format = detect_format(checkpoint["model"])
    if format is Format.IMAGENET:
        raise InputError(
            "ImageNet weights are of a backbone alone, and not a whole DETR. Fine-tuning begins with a trained one, as "
            "detr://r50; train_net.py takes them as MODEL.WEIGHTS of a training from nothing"
        )
    common, _ = to_canonical(checkpoint["model"], format)
    architecture = infer_architecture(common)
    missing = [name for name in (*CLASS_HEAD, QUERIES) if name not in common]
    if missing and not to_train:
        raise InputError(f"{missing[0]} is missing: the model has to be trained before it finds anything")
    metadata = checkpoint_metadata(checkpoint)
    label_map = None if missing else _label_map(common, format, metadata.label_map)
    if metadata.config:
        saved = yaml.safe_load(metadata.config)
    else:
        saved = _config_of_sizes(architecture, metadata, label_map, dilated="dc5" in file.name.lower())
    cfg = load_config("Base-DETR.yaml", [])
    device = cfg.MODEL.DEVICE  # the one that the model was trained on may not be here
    try:
        cfg.merge_from_other_cfg(type(cfg)({section: saved.get(section, {}) for section in SECTIONS}))
        cfg.MODEL.DEVICE = device
        cfg.MODEL.DETR.FROZEN_WEIGHTS = ""
        if label_map:
            cfg.MODEL.DETR.NUM_CLASSES = len(label_map)
        cfg.merge_from_list(list(opts))
    except (KeyError, ValueError, AssertionError) as error:
        raise InputError(
            f"config of the checkpoint, with {' '.join(map(str, opts)) or 'no options'}: {error}"
        ) from error
    return cfg, label_map


def _label_map(common: StateDict, format: Format, known: LabelMap | None) -> LabelMap:
    """The classes that the head is read as when the model is loaded; one that nobody names is called by its id."""
    weight, bias = (common[name] for name in CLASS_HEAD)
    try:
        head, _ = read_head(weight, bias, format, label_map=known)
    except AmbiguousClassHead:
        # Row = category id in both readings, and a row 0 that was never used finds nothing.
        head, _ = read_head(weight, bias, format, first_class_id=0)
    ids = head.label_map.ids
    return LabelMap(ids, head.label_map.names or tuple(f"class {category_id}" for category_id in ids))


def _config_of_sizes(
    architecture: Architecture, metadata: Metadata, label_map: LabelMap | None, *, dilated: bool
) -> dict[str, Any]:
    """What differs from Base-DETR.yaml in a model of these sizes; `dilated` where the metadata do not say."""
    if architecture.depth is None:
        raise InputError(f"its backbone is {architecture.backbone}, and no config of this plugin's lies beside it")
    masks = architecture.mask_head
    num_heads = masks.num_heads if masks else metadata.num_heads
    if num_heads is None or metadata.dilation is None:
        logger.info(
            "The checkpoint does not tell all: taken for %d attention heads and %s dilation (DC5)",
            num_heads or DEFAULT_HEADS, "a" if dilated else "no",
        )  # fmt: skip
    sizes = dict(zip(("MIN_SIZE_TEST", "MAX_SIZE_TEST"), metadata.test_sizes or (), strict=False))
    is_coco_panoptic = label_map is not None and label_map.ids == LabelMap.coco_panoptic().ids
    queries = {"NUM_OBJECT_QUERIES": architecture.num_queries} if architecture.num_queries else {}
    return {
        "INPUT": sizes,
        "MODEL": {
            "MASK_ON": masks is not None,
            "RESNETS": {
                "DEPTH": architecture.depth,
                "OUT_FEATURES": [f"res{architecture.stages + 1}"],
                "RES5_DILATION": 2 if (dilated if metadata.dilation is None else metadata.dilation) else 1,
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
                # Its things come first.
                "STUFF_CLASSES": tuple(range(len(LabelMap.coco()), len(label_map))) if is_coco_panoptic else (),
            },
        },
    }
