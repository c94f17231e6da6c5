"""Record figures of the official wrapper for test_detections_parity.py.

    git clone https://github.com/facebookresearch/detr && python tests/reference/record_wrapper.py detr

Recorded with facebookresearch/detr at 29901c5, facebookresearch/detectron2 at 02b5c4e, torch 2.15.0, on the CPU.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

sys.path.insert(0, str(Path(__file__).parent))
import native

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

CONFIG = "d2/configs/detr_256_6_6_torchvision.yaml"


def build(detr_folder: str, sizes: dict[str, int]) -> tuple[nn.Module, CfgNode]:
    """Build the model of the wrapper's config in float64, filled by native.fill."""
    import models.backbone
    from d2.detr import add_detr_config

    models.backbone.is_main_process = lambda: False  # otherwise ImageNet weights may be downloaded
    cfg = get_cfg()
    add_detr_config(cfg)
    cfg.merge_from_file(str(Path(detr_folder) / CONFIG))
    cfg.merge_from_list([*native.config_options(sizes), "SOLVER.BASE_LR", str(native.LEARNING_RATE)])
    model = build_model(cfg).double()
    native.fill(model.detr.state_dict(prefix="detr."))
    prepare_targets = model.prepare_targets  # Detectron2's boxes are float32, but cdist needs equal types
    model.prepare_targets = lambda instances: [
        {**target, "boxes": target["boxes"].double()} for target in prepare_targets(instances)
    ]
    return model, cfg


def inputs(sizes_hw: list[tuple[int, int]]) -> list[dict]:
    """Return inputs of Detectron2 for training and detection."""
    return [
        {"image": picture.double(), "height": height, "width": width, "instances": instances(target, size_hw)}
        for picture, (height, width), target, size_hw in zip(
            native.patchwork_images(sizes_hw), native.OUTPUT_SIZES_HW, native.targets(), sizes_hw, strict=True
        )
    ]


def instances(target: dict[str, Tensor], size_hw: tuple[int, int]) -> Instances:
    """Convert a target of native DETR to Detectron2's."""
    height, width = size_hw
    boxes = box_convert(target["boxes"], "cxcywh", "xyxy") * torch.tensor([width, height, width, height])
    return Instances(size_hw, gt_boxes=Boxes(boxes), gt_classes=target["labels"])


@torch.no_grad()
def detect(model: nn.Module) -> dict[str, Tensor]:
    """Return the detections in each image."""
    figures = {}
    for picture, output in enumerate(model.eval()(inputs(native.WHOLE_CELLS_HW))):
        found = output["instances"]
        figures[f"boxes/{picture}"] = found.pred_boxes.tensor
        figures[f"scores/{picture}"] = found.scores
        figures[f"classes/{picture}"] = found.pred_classes
    return figures


def train(model: nn.Module, cfg: CfgNode) -> dict[str, Tensor]:
    """Train with the losses of all layers; return total losses and parameter changes."""
    from d2.train_net import Trainer

    optimizer = Trainer.build_optimizer(cfg, model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    losses = []
    for _ in range(native.STEPS):
        terms = model.train()(inputs(native.WHOLE_CELLS_SMALL_HW))
        # Detectron2's trainer also adds class_error and cardinality_error, which have no gradient.
        loss = sum(term for name, term in terms.items() if name.startswith("loss"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss)
    changes = native.sample_of_changes(before, model.state_dict())
    return {"losses": torch.stack(losses), **{f"change/{name}": change for name, change in changes.items()}}


def record(detr_folder: str, sizes: dict[str, int]) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """Return figures, names and shapes of the checkpoint; train only small models."""
    model, cfg = build(detr_folder, sizes)
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    figures = detect(model)
    if sizes is native.SMALL:
        figures |= {f"all/{name}": figure for name, figure in train(model, cfg).items()}
    return figures, shapes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("detr", help="checkout of facebookresearch/detr")
    folder = parser.parse_args().detr
    sys.path.insert(0, folder)
    for model_name, sizes in native.DESCENDANTS.items():
        native.write(f"wrapper_{model_name}", *record(folder, sizes))
