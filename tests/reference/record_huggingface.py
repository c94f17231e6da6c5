"""Record figures of Hugging Face's DETR for test_detections_parity.py.

    pip install transformers==5.23.0 timm==1.0.31 && python tests/reference/record_huggingface.py

Recorded with transformers 5.23.0, timm 1.0.31, torch 2.15.0, on the CPU.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor, ResNetConfig

sys.path.insert(0, str(Path(__file__).parent))
import native

PROCESSOR = DetrImageProcessor(do_resize=False)


def configure(
    hidden_dim: int, nheads: int, dim_feedforward: int, enc_layers: int, dec_layers: int, **backbone
) -> DetrConfig:
    """Return the config of one of native.DESCENDANTS.

    `backbone` has options of DetrConfig; by default the backbone is timm's ResNet-50.
    """
    backbone.pop("depth", None)
    return DetrConfig(
        num_labels=native.NUM_CLASSES,
        num_queries=native.NUM_QUERIES,
        d_model=hidden_dim,
        encoder_attention_heads=nheads,
        decoder_attention_heads=nheads,
        encoder_ffn_dim=dim_feedforward,
        decoder_ffn_dim=dim_feedforward,
        encoder_layers=enc_layers,
        decoder_layers=dec_layers,
        dropout=0.0,
        **backbone,
    )


def saved(model: DetrForObjectDetection) -> dict[str, Tensor]:
    """Return the tensors that save_pretrained writes; the state dict has other names."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_file(Path(folder) / "model.safetensors")


def loaded(config: DetrConfig, weights: dict[str, Tensor]) -> DetrForObjectDetection:
    """Load such tensors with from_pretrained, in float64."""
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        save_file(weights, Path(folder) / "model.safetensors", metadata={"format": "pt"})
        model, info = DetrForObjectDetection.from_pretrained(folder, dtype=torch.float64, output_loading_info=True)
    assert not any(info.values()), info
    return model


def inputs(sizes_hw: list[tuple[int, int]]) -> dict[str, Tensor]:
    """Return the pixel_values (B, 3, H, W) and pixel_mask (B, H, W) of the images."""
    made = PROCESSOR(images=native.patchwork_images(sizes_hw), return_tensors="pt")
    return {"pixel_values": made["pixel_values"].double(), "pixel_mask": made["pixel_mask"]}


@torch.no_grad()
def detect(model: DetrForObjectDetection) -> dict[str, Tensor]:
    """Return detections of the image processor, in pixels, not clipped to the image."""
    outputs = model.eval()(**inputs(native.SIZES_HW))
    results = PROCESSOR.post_process_object_detection(outputs, threshold=0.0, target_sizes=native.OUTPUT_SIZES_HW)
    figures = {}
    for picture, found in enumerate(results):
        figures[f"boxes/{picture}"] = found["boxes"]
        figures[f"scores/{picture}"] = found["scores"]
        figures[f"classes/{picture}"] = found["labels"]
    return figures


@contextmanager
def float64_by_default() -> Iterator[None]:
    """Set the dtype in which the loss of transformers creates its class weights."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def loss_of_last_layer(model: DetrForObjectDetection, batch: dict, labels: list[dict[str, Tensor]]) -> Tensor:
    """Return the loss of the last decoder layer."""
    return model(**batch, labels=labels).loss


def loss_of_all_layers(model: DetrForObjectDetection, batch: dict, labels: list[dict[str, Tensor]]) -> Tensor:
    """Return the loss of all decoder layers, as in the paper.

    With `auxiliary_loss`, the decoder of transformers would be another model: each layer would get the normalized
    output of the one before, and the last output would be normalized twice.
    """
    outputs = model(**batch, output_hidden_states=True)
    _, *before_last, _ = (
        outputs.decoder_hidden_states
    )  # the input of the first layer comes first; the last state is normalized
    states = torch.stack([*map(model.model.decoder.layernorm, before_last), outputs.last_hidden_state])
    logits, boxes = model.class_labels_classifier(states), model.bbox_predictor(states).sigmoid()
    config = copy.deepcopy(model.config)
    config.auxiliary_loss = True
    loss, _, _ = model.loss_function(logits[-1], labels, model.device, boxes[-1], config, logits, boxes)
    return loss


def train(model: DetrForObjectDetection, loss_of: Callable[..., Tensor]) -> dict[str, Tensor]:
    """Train; return the total loss of each step and the changes of the parameters.

    transformers 5.23.0 trains the whole backbone: it freezes the stem and the first stage only if the name of the model
    type, here timm_backbone, contains "resnet".
    """
    labels = [{"class_labels": target["labels"], "boxes": target["boxes"]} for target in native.targets()]
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for name, p in parameters.items() if "backbone" not in name]},
            {"params": [p for name, p in parameters.items() if "backbone" in name], "lr": native.LEARNING_RATE / 10},
        ],
        lr=native.LEARNING_RATE,
        weight_decay=1e-4,
    )
    batch, before, losses = inputs(native.SMALL_SIZES_HW), saved(model.train()), []
    for _ in range(native.STEPS):
        with float64_by_default():
            loss = loss_of(model, batch, labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        losses.append(loss)
    changes = native.sample_of_changes(before, saved(model))
    return {"losses": torch.stack(losses), **{f"change/{name}": change for name, change in changes.items()}}


def record(sizes: dict[str, int], **backbone) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """Return figures, and names and shapes of the checkpoint.

    Only small models with timm's backbone are trained.
    """
    config = configure(**sizes, **backbone)
    shapes = {name: list(tensor.shape) for name, tensor in saved(DetrForObjectDetection(config)).items()}
    weights = native.checkpoint(shapes)
    figures = detect(loaded(config, weights))
    if sizes is native.SMALL and not backbone:
        for layers, loss_of in {"last": loss_of_last_layer, "all": loss_of_all_layers}.items():
            figures |= {f"{layers}/{name}": f for name, f in train(loaded(config, weights), loss_of).items()}
    return figures, shapes


if __name__ == "__main__":
    for model_name, sizes in native.DESCENDANTS.items():
        native.write(f"huggingface_{model_name}", *record(sizes))
    own_resnet = ResNetConfig(out_features=["stage4"])  # its tensors have other names than timm's
    figures = record(native.SMALL, use_timm_backbone=False, backbone_config=own_resnet)
    native.write("huggingface_r50_small_without_timm", *figures)
