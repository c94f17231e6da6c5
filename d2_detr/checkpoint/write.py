"""Write a converted checkpoint in the form that its readers expect."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from d2_detr.checkpoint import hugging_face
from d2_detr.checkpoint.architecture import infer_architecture
from d2_detr.checkpoint.layouts import Format, StateDict, to_canonical
from d2_detr.checkpoint.metadata import Metadata
from d2_detr.checkpoint.save import save_safetensors, save_torch

DEFAULT_HEADS = 8  # attention heads of every published DETR


def write_checkpoint(path: str | Path, state_dict: StateDict, format: Format, metadata: Metadata) -> None:
    """Write a state dict atomically, with the metadata of its model.

    Hugging Face's layout is a folder with configs. The others are one file, with label map, config and threshold beside
    the tensors, where other readers ignore them.

    Args:
        path: the folder, or a file: .safetensors, any other suffix for torch's format.
        state_dict: in the layout of `format`.
    """
    path = Path(path)
    # A view, such as one of three split projections, would be written with its whole storage, or refused.
    state_dict = {name: t.detach().clone(memory_format=torch.contiguous_format) for name, t in state_dict.items()}
    if format is Format.HUGGING_FACE:
        architecture = infer_architecture(to_canonical(state_dict, format)[0])
        num_heads = architecture.mask_head.num_heads if architecture.mask_head else metadata.num_heads
        hugging_face.write_folder(
            path,
            state_dict,
            architecture,
            metadata.label_map,
            num_heads=num_heads or DEFAULT_HEADS,
            dilation=bool(metadata.dilation),
            test_sizes=metadata.test_sizes or hugging_face.DEFAULT_TEST_SIZES,
        )
        return
    extra: dict[str, object] = {"label_map": metadata.label_map.to_dict()} if metadata.label_map else {}
    extra |= {"config": metadata.config} if metadata.config else {}
    extra |= {"threshold": metadata.threshold} if metadata.threshold is not None else {}
    if path.suffix == ".safetensors":
        save_safetensors(state_dict, path, {key: json.dumps(value) for key, value in extra.items()})
    else:
        save_torch({"model": state_dict} | extra, path)
