"""Record figures of native DETR for tests/modeling/test_native_parity.py.

    git clone https://github.com/facebookresearch/detr
    git clone https://github.com/cocodataset/panopticapi
    PYTHONPATH=panopticapi python tests/reference/record_native.py detr

Recorded with facebookresearch/detr at 29901c5, torch 2.15.0, on the CPU.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))
import native


def build(detr_folder: str, depth: int, dilation: bool = False, pre_norm: bool = False, masks: bool = False, **sizes):
    """Build the model and the criterion."""
    sys.path.insert(0, detr_folder)
    import models.backbone
    from models.detr import DETR, SetCriterion
    from models.matcher import HungarianMatcher
    from models.transformer import build_transformer

    models.backbone.is_main_process = lambda: False  # otherwise ImageNet weights are downloaded
    args = argparse.Namespace(
        backbone=f"resnet{depth}", dilation=dilation, pre_norm=pre_norm, dropout=0.0,
        lr_backbone=1e-5, masks=masks, position_embedding="sine", **sizes,
    )  # fmt: skip
    model = DETR(
        models.backbone.build_backbone(args), build_transformer(args), native.NUM_CLASSES, native.NUM_QUERIES, True
    )
    matcher = HungarianMatcher(cost_class=1, cost_bbox=5, cost_giou=2)
    criterion = SetCriterion(native.NUM_CLASSES, matcher, {}, 0.1, ["labels", "boxes", "cardinality"])
    return model, criterion


def record_masks(name: str, detr_folder: str) -> tuple[dict[str, torch.Tensor], dict[str, list[int]]]:
    """Return figures of a model with masks, and names and shapes of its checkpoint."""
    detr, criterion = build(detr_folder, masks=True, **native.MASK_MODELS[name])
    from models.segmentation import DETRsegm

    model = DETRsegm(detr).double().train()
    criterion = criterion.double()
    criterion.losses.append("masks")
    native.fill(model.state_dict())
    targets = [t | {"masks": masks} for t, masks in zip(native.targets(), native.gt_masks(), strict=True)]
    outputs = model(native.images())
    losses = {k: v for k, v in criterion(outputs, targets).items() if k in ("loss_mask", "loss_dice")}
    sum(losses.values()).backward()

    parameters = {name.removeprefix("detr."): p for name, p in model.named_parameters()}
    figures = {"pred_masks": native.sample(outputs["pred_masks"], 20_000)}
    figures["largest"] = outputs["pred_masks"].abs().max()
    figures |= {f"loss/{k}": v for k, v in losses.items()}
    figures |= {f"gradient/{k}": native.sample(parameters[k].grad) for k in native.MASK_GRADIENTS}
    return figures, {k: list(v.shape) for k, v in model.state_dict().items()}


def record_panoptic(detr_folder: str) -> dict[str, torch.Tensor]:
    """Return panoptic segments for inputs in which there are none to merge."""
    sys.path.insert(0, detr_folder)
    from models.segmentation import PostProcessPanoptic, rgb2id
    from PIL import Image

    is_thing = {label: label not in native.STUFF for label in range(native.NUM_CLASSES)}
    postprocess = PostProcessPanoptic(is_thing, threshold=native.PANOPTIC_THRESHOLD)
    figures = {}
    for number, (logits, masks) in enumerate(native.panoptic_cases()):
        outputs = {"pred_logits": logits[None], "pred_masks": masks[None], "pred_boxes": torch.zeros(1, len(logits), 4)}
        [found] = postprocess(outputs, [native.PANOPTIC_HW])
        ids = rgb2id(np.asarray(Image.open(io.BytesIO(found["png_string"]))))
        segments = [[s["id"], s["category_id"], s["area"], s["isthing"]] for s in found["segments_info"]]
        figures[f"{number}/ids"] = torch.from_numpy(ids.astype(np.int16))
        figures[f"{number}/segments"] = torch.tensor(segments)
    return figures


def record(name: str, detr_folder: str) -> dict[str, torch.Tensor]:
    """Return states, predictions, matches, losses and gradients of a model."""
    model, criterion = build(detr_folder, **native.MODELS[name])
    model.double()
    criterion.double()
    native.fill(model.state_dict())
    seen = {}
    model.transformer.register_forward_hook(lambda _, __, out: seen.update(states=out[0], memory=out[1]))
    model.train()
    outputs = model(native.images())
    losses = criterion(outputs, native.targets())
    weights = {"loss_ce": 1, "loss_bbox": 5, "loss_giou": 2}
    weighted = {k: v * next(w for n, w in weights.items() if k.startswith(n)) for k, v in losses.items() if "loss" in k}
    sum(weighted.values()).backward()

    layers = [*outputs["aux_outputs"], outputs]
    figures = {
        "states": seen["states"],
        "memory": seen["memory"],
        "pred_logits": torch.stack([layer["pred_logits"] for layer in layers]),
        "pred_boxes": torch.stack([layer["pred_boxes"] for layer in layers]),
    }
    for i, layer in enumerate(layers):
        for picture, match in enumerate(criterion.matcher(layer, native.targets())):
            figures[f"match/{i}/{picture}"] = torch.stack(match)
    figures |= {f"loss/{k}": v for k, v in weighted.items()}
    figures |= {f"error/{k}": losses[k] for k in ("class_error", "cardinality_error")}
    parameters = dict(model.named_parameters())
    figures |= {f"gradient/{k}": native.sample(parameters[k].grad) for k in native.GRADIENTS}
    return {k: (v.float() if v.is_floating_point() else v).detach().clone().contiguous() for k, v in figures.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("detr", help="checkout of facebookresearch/detr")
    folder = parser.parse_args().detr
    save_file(record_panoptic(folder), native.FOLDER / "native_panoptic.safetensors")
    for model_name in native.MASK_MODELS:
        native.write(f"native_{model_name}", *record_masks(model_name, folder))
    for model_name in native.MODELS:
        save_file(record(model_name, folder), native.FOLDER / f"native_{model_name}.safetensors")
