"""Where weights come from: local files, addresses, and names for published ones."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from urllib.parse import urlparse

from d2_detr.utils.download import cache_folder, download
from d2_detr.utils.errors import InputError

# Published checkpoints of native DETR, trained on COCO; the hash is part of the file's name.
_PUBLISHED = "https://dl.fbaipublicfiles.com/detr/detr-{}.pth"
DETR = {
    "r50": _PUBLISHED.format("r50-e632da11"),
    "r50-dc5": _PUBLISHED.format("r50-dc5-f0fb7ef5"),
    "r101": _PUBLISHED.format("r101-2c7b67e5"),
    "r101-dc5": _PUBLISHED.format("r101-dc5-a2e86def"),
    "r50-panoptic": _PUBLISHED.format("r50-panoptic-00ce5173"),
    "r50-dc5-panoptic": _PUBLISHED.format("r50-dc5-panoptic-da08f1b1"),
    "r101-panoptic": _PUBLISHED.format("r101-panoptic-40021d53"),
}
# torchvision's ImageNet weights, version 1: what DETR was trained from.
IMAGENET = {
    18: "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    34: "https://download.pytorch.org/models/resnet34-b627a593.pth",
    50: "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    101: "https://download.pytorch.org/models/resnet101-63fe2227.pth",
}
# Detectron2's names for the same weights as pickles; configs of the official wrapper have them.
_DETECTRON2_NAME = re.compile(r"detectron2://ImageNetPretrained/torchvision/R-(\d+)\.pkl")


def local_weights(name: str) -> Path:
    """Path of the file or folder that `name` means: a path itself, or what is fetched once from an http(s) address, a
    name of native DETR's checkpoints as `detr://r50`, or Detectron2's name of torchvision's ImageNet weights.

    Raises:
        InputError: a name that is not known.
        ConnectionError: the file is not in the cache and cannot be fetched.
    """
    if match := _DETECTRON2_NAME.fullmatch(name):
        depth = int(match[1])
        if depth not in IMAGENET:
            raise InputError(f"{name}: torchvision has ImageNet weights for the depths {', '.join(map(str, IMAGENET))}")
        name = IMAGENET[depth]
    elif name.startswith("detr://"):
        if name.removeprefix("detr://") not in DETR:
            raise InputError(f"{name}: no such model; published are {', '.join('detr://' + key for key in DETR)}")
        name = DETR[name.removeprefix("detr://")]
    scheme = urlparse(name).scheme
    if scheme in ("http", "https"):
        file_name = Path(urlparse(name).path).name
        if not file_name:
            raise InputError(f"weights {name!r}: the address ends without a file name")
        sha256_prefix = _hash_in(file_name)
        # Everyone's model_final.pth has a folder of its own.
        folder = cache_folder() if sha256_prefix else cache_folder() / hashlib.sha256(name.encode()).hexdigest()[:12]
        return download(name, folder / file_name, sha256_prefix=sha256_prefix)
    if "://" in name:
        raise InputError(f"weights {name!r}: no such name; give a path, an https address, or a name as detr://r50")
    return Path(name)


def is_imagenet_weights(name: str) -> bool:
    """Whether it is one of the names for a backbone of ImageNet's classes."""
    return bool(_DETECTRON2_NAME.fullmatch(name)) or name in IMAGENET.values()


def _hash_in(file_name: str) -> str:
    """`e632da11` of `detr-r50-e632da11.pth`, the convention of PyTorch's hub; "" if there is none, or it is a date."""
    match = re.search(r"-(?=\d*[a-f])([0-9a-f]{8,})\.\w+$", file_name)
    return match[1] if match else ""
