"""What a checkpoint file must be before it is read, and what its tensors must be before they are used.

torch's restricted unpickler (see read.py) already refuses to run code. These checks bound memory and time, find damage,
and refuse the few functions of that unpickler with which a small file can fill the memory.
"""

from __future__ import annotations

import pickletools
import struct
import zipfile
from enum import Enum
from pathlib import Path
from typing import IO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from d2_detr.checkpoint.storage_sizes import StorageCheck
from d2_detr.utils.archives import open_zip
from d2_detr.utils.errors import InputError, one_line

MAX_ELEMENTS = 500_000_000  # of a state dict; a DETR has 40 to 60 million
MAX_HEADER_BYTES = 16 << 20  # of the part that describes the tensors; a DETR and its optimizer need less than 1 MB
MAX_OPERATIONS = 1_000_000  # of a pickle; a DETR and its optimizer need about 50,000
# What a pickle of weights, optimizer and arguments may refer to, besides dtypes and types of storage.
_NAMES = {
    "argparse.Namespace", "builtins.set", "__builtin__.set", "collections.Counter", "collections.OrderedDict",
    "torch.Size", "torch.device", "torch.storage.UntypedStorage", "torch.nn.parameter.Parameter",
    "torch._tensor._rebuild_from_type_v2", "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state", "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
}  # fmt: skip
_NUM_LEGACY_PICKLES = 5  # at the start of a file of torch before 1.6
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class FileType(Enum):
    """Types of checkpoint files."""

    ZIP = "torch"
    LEGACY = "torch before 1.6"
    SAFETENSORS = "safetensors"


class _UnexpectedName(InputError):
    """A pickle refers to something that is not needed to rebuild tensors."""


def check_file(path: Path) -> FileType:
    """Recognize a checkpoint file by its content, and check that it is complete and within the limits.

    The checksums in a zip file are verified. The other types have none.

    Raises:
        InputError: not a checkpoint, damaged, too large, or a pickle that could run code or fill the memory.
    """
    try:
        return _recognize(path)
    except _UnexpectedName:
        raise
    except InputError as error:
        raise damaged(error) from error


def damaged(reason: object) -> InputError:
    """Return the error about a file that is not a checkpoint or not complete."""
    return InputError(f"not a checkpoint, or truncated ({one_line(reason)}); download or save it again")


def check_state_dict(state_dict: object) -> dict[str, Tensor]:
    """Check that weights can be used.

    Raises:
        InputError: not a state dict, or a tensor that is too large, of an unexpected type, or not finite.
    """
    if not isinstance(state_dict, dict):
        raise InputError(f"model is a {type(state_dict).__name__}, not a state dict")
    for name, value in state_dict.items():
        if not isinstance(name, str):
            raise InputError(f"the state dict has the name {name!r:.40}, expected text")
        if not isinstance(value, Tensor):
            raise InputError(f"{name} of the state dict is a {type(value).__name__}, not a tensor")
    # A tensor can claim more elements than the file has.
    if (total := sum(tensor.numel() for tensor in state_dict.values())) > MAX_ELEMENTS:
        raise InputError(f"the tensors have {total:,} elements, expected at most {MAX_ELEMENTS:,}")
    for name, tensor in state_dict.items():
        if (tensor.is_floating_point() and tensor.dtype not in _FLOATS) or tensor.is_complex():
            raise InputError(f"{name} has the type {tensor.dtype}; save the weights as torch.float32")
        if tensor.is_floating_point() and tensor.numel() and not all(map(torch.isfinite, torch.aminmax(tensor))):
            raise InputError(
                f"{name} has values that are not finite (NaN or infinity): the training diverged; use an earlier "
                "checkpoint, or train again with a lower learning rate"
            )
    return state_dict


def _recognize(path: Path) -> FileType:
    with path.open("rb") as file:
        start = file.read(16)
        file.seek(0)
        if start.startswith(b"PK\x03\x04"):
            _check_zip(path)
            return FileType.ZIP
        # The length of a header of safetensors may begin like a pickle; a pickle has no such length.
        if start[8:9] == b"{" and (length := struct.unpack("<Q", start[:8])[0]) < path.stat().st_size:
            _check_safetensors(path, length)
            return FileType.SAFETENSORS
        if start.startswith(b"\x80"):
            _check_pickles(file, _NUM_LEGACY_PICKLES)
            return FileType.LEGACY
    if start.lstrip().startswith(b"<"):
        raise InputError("it is a web page")
    raise InputError("it is a pointer of Git LFS" if start.startswith(b"version http") else "unknown content")


def _check_zip(path: Path) -> None:
    # torch stores its members uncompressed, so that all together are smaller than the file.
    with open_zip(path, max_bytes=path.stat().st_size, methods=[zipfile.ZIP_STORED]) as archive:
        if changed := archive.testzip():
            raise InputError(f"{changed} does not match its checksum")
        pickles = [member for member in archive.infolist() if member.filename.endswith("/data.pkl")]
        if any(member.file_size > MAX_HEADER_BYTES for member in pickles):
            raise InputError(f"data.pkl is larger than {MAX_HEADER_BYTES:,} bytes")
        for member in pickles:
            with archive.open(member) as file:
                _check_pickles(file, 1, StorageCheck(archive.infolist()))


def _check_pickles(file: IO[bytes], number: int, storages: StorageCheck | None = None) -> None:
    """Go through the first pickles in a file without performing what they say."""
    num_operations = 0
    for _ in range(number):
        try:
            for opcode, argument, _ in pickletools.genops(file):
                num_operations += 1
                if num_operations > MAX_OPERATIONS:
                    raise InputError(f"its pickle has more than {MAX_OPERATIONS:,} operations")
                if opcode.name == "GLOBAL":
                    _check_name(str(argument).replace(" ", "."))
                if storages:
                    storages.follow(opcode.name, argument)
        except InputError:
            raise
        except (ValueError, struct.error, OverflowError, MemoryError) as error:
            raise InputError(str(error)) from error
        if not file.read(1):
            return  # a mere pickle, not torch's format: the unpickler decides
        file.seek(-1, 1)


def _check_name(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    is_type = module == "torch" and (
        attribute.endswith("Storage") or isinstance(getattr(torch, attribute, None), torch.dtype)
    )
    if name not in _NAMES and not is_type:
        raise _UnexpectedName(
            f"contains {name}, which could run code or fill the memory, so it is not read; save the state dict alone, "
            "with torch.save(model.state_dict(), path)"
        )


def _check_safetensors(path: Path, header_bytes: int) -> None:
    if header_bytes > MAX_HEADER_BYTES:
        raise InputError(f"its header has {header_bytes:,} bytes, expected at most {MAX_HEADER_BYTES:,}")
    try:
        with safe_open(path, framework="pt"):
            pass
    except SafetensorError as error:
        raise InputError(str(error)) from error
