"""Predictions with the attention that led to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from d2_detr.modeling.attention import MultiheadAttention
from d2_detr.modeling.detr import Detr, decode_detections, padding_mask
from d2_detr.modeling.transformer import DecoderLayer, EncoderLayer, Transformer
from d2_detr.structures.attention import Attention

from detectron2.structures import Instances


@torch.no_grad()
def predict_with_attention(model: nn.Module, inputs: dict, threshold: float) -> tuple[Instances, list[int], Attention]:
    """Predict the objects in an image, without masks.

    Args:
        model: Detr, in evaluation mode.
        inputs: one input of the model.
        threshold: minimum score, in [0, 1].

    Returns:
        The instances, without stuff, highest score first; the query of each; and the attention of all queries.
    """
    detr = cast(Detr, model)
    images = detr.preprocess([inputs])
    with record_attention(detr.detr.transformer) as recorded:
        outputs = detr.detr(images.tensor, padding_mask(images))
    logits, boxes = outputs["pred_logits"][-1, 0], outputs["pred_boxes"][-1, 0]
    size_hw = inputs["height"], inputs["width"]
    instances, queries = decode_detections(logits, boxes, size_hw, score_threshold=threshold)
    order = instances.scores.argsort(descending=True)
    order = order[detr.is_thing(instances.pred_classes[order])]
    return instances[order], queries[order].tolist(), recorded[0]


@contextmanager
def record_attention(transformer: Transformer) -> Iterator[list[Attention]]:
    """Record the attention of every forward pass of a single image, in the list that is yielded.

    It is that of the last encoder layer and the last decoder layer, averaged over the heads.
    """
    recorded: list[Attention] = []
    weights: dict[str, Tensor] = {}
    watched: dict[str, MultiheadAttention] = {
        "encoder": cast(EncoderLayer, transformer.encoder.layers[-1]).self_attn,
        "decoder": cast(DecoderLayer, transformer.decoder.layers[-1]).multihead_attn,
    }

    def record(module: nn.Module, args: tuple, outputs: tuple[Tensor, Tensor]) -> None:
        height, width = outputs[1].shape[-2:]
        encoder, decoder = (weights[name].mean(1).float().cpu().numpy() for name in ("encoder", "decoder"))
        encoder = encoder[0].reshape(height, width, height, width)
        recorded.append(Attention(encoder, decoder[0].reshape(-1, height, width)))

    handles = [transformer.register_forward_hook(record)]
    for name, module in watched.items():

        def compute_weights(
            module: MultiheadAttention, args: tuple[Tensor, ...], output: Tensor, *, name: str = name
        ) -> None:
            query, key, _value, padding_mask = args
            weights[name] = module.weights(query, key, padding_mask)

        handles.append(module.register_forward_hook(compute_weights))
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()
