"""State dicts of DETR of any size, which take almost no memory."""

from __future__ import annotations

import zlib

import torch
from hypothesis import strategies as st

from d2_detr.checkpoint.architecture import Architecture, MaskSizes, expected_shapes
from d2_detr.checkpoint.layouts import StateDict

CHANNELS = {18: (64, 128, 256, 512), 34: (64, 128, 256, 512), 50: (256, 512, 1024, 2048), 101: (256, 512, 1024, 2048)}


def architecture(depth=50, stages=4, enc=2, dec=2, rows=5, pre_norm=False, masks=False) -> Architecture:
    return Architecture(
        depth=depth,
        stages=stages,
        backbone_channels=CHANNELS[depth][stages - 1],
        hidden_dim=128 if masks else 8,
        dim_feedforward=12,
        encoder_layers=enc,
        decoder_layers=dec,
        pre_norm=pre_norm,
        num_queries=6,
        class_rows=rows,
        mask_head=MaskSizes(8, CHANNELS[depth][2::-1]) if masks else None,
        num_parameters=0,
    )


def canonical_state(a: Architecture) -> StateDict:
    """Fill every tensor with its own values; large ones with one value, which takes no memory."""
    return {name: _tensor(name, tuple(shape)) for name, shape in expected_shapes(a).items()}


def _tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    small = torch.Size(shape).numel() < 1000
    return torch.randn(shape if small else (), generator=generator).expand(shape)


def assert_same(a: StateDict, b: StateDict) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        other = b[name]
        assert tensor.shape == other.shape, name
        if not any(tensor.stride()) and not any(other.stride()):
            tensor, other = tensor.flatten()[:1], other.flatten()[:1]
        assert torch.equal(tensor, other), name


@st.composite
def architectures(draw) -> Architecture:
    depth = draw(st.sampled_from(list(CHANNELS)))
    return architecture(
        depth=depth,
        stages=draw(st.sampled_from([3, 4])) if depth in (18, 50) else 4,
        enc=draw(st.integers(1, 4)),
        dec=draw(st.integers(1, 4)),
        rows=draw(st.integers(2, 300)),
        pre_norm=draw(st.booleans()),
        masks=draw(st.booleans()),
    )
