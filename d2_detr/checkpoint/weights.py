"""Where weights come from: local files, addresses, and names for published ones."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from urllib.parse import urlparse

from d2_detr.download import cache_folder, download
from d2_detr.errors import InputError

# torchvision's ImageNet weights, version 1: what DETR was trained from. The hash is part of the name.
IMAGENET = {
    18: "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    34: "https://download.pytorch.org/models/resnet34-b627a593.pth",
    50: "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    101: "https://download.pytorch.org/models/resnet101-63fe2227.pth",
}
# Detectron2's names for the same weights as pickles; configs of the official wrapper have them.
_DETECTRON2_NAME = re.compile(r"detectron2://ImageNetPretrained/torchvision/R-(\d+)\.pkl")


def local_weights(name: str) -> Path:
    """Path of the file that `name` means: a path itself, an http(s) address or a published name (fetched once).

    Raises:
        InputError: a name that is not known.
        ConnectionError: the file is not in the cache and cannot be fetched.
    """
    if match := _DETECTRON2_NAME.fullmatch(name):
        depth = int(match[1])
        if depth not in IMAGENET:
            raise InputError(f"{name}: torchvision has ImageNet weights for the depths {', '.join(map(str, IMAGENET))}")
        name = IMAGENET[depth]
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
        raise InputError(f"weights {name!r}: no such name; give a path, an https address, or a name as the configs use")
    return Path(name)


def _hash_in(file_name: str) -> str:
    """`e632da11` of `detr-r50-e632da11.pth`, the convention of PyTorch's hub; "" if there is none, or it is a date."""
    match = re.search(r"-(?=\d*[a-f])([0-9a-f]{8,})\.\w+$", file_name)
    return match[1] if match else ""
