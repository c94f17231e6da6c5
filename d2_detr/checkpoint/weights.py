"""Where weights come from: local files, addresses, and names of published checkpoints."""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path

from d2_detr.checkpoint.file_checks import check_file
from d2_detr.utils.download import cache_folder, download
from d2_detr.utils.errors import InputError

logger = logging.getLogger(__name__)

# Native DETR's checkpoints, trained on COCO. The file name contains the hash.
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
# torchvision's ImageNet weights, version 1, from which DETR was trained.
IMAGENET = {
    18: "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    34: "https://download.pytorch.org/models/resnet34-b627a593.pth",
    50: "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    101: "https://download.pytorch.org/models/resnet101-63fe2227.pth",
}
# Detectron2's names for the same weights as pickles, used in configs of the official wrapper.
_DETECTRON2_NAME = re.compile(r"detectron2://ImageNetPretrained/torchvision/R-(\d+)\.pkl")


def local_weights(name: str) -> Path:
    """Return the local path of weights, downloading them on first use.

    Args:
        name: a path, an http(s) address, a published DETR such as `detr://r50`, or Detectron2's name of torchvision's
            ImageNet weights.

    Raises:
        InputError: unknown name, or the file is not a checkpoint.
        ConnectionError: the file is not cached and cannot be downloaded.
    """
    if match := _DETECTRON2_NAME.fullmatch(name):
        depth = int(match[1])
        if depth not in IMAGENET:
            raise InputError(f"{name}: torchvision has ImageNet weights for the depths {', '.join(map(str, IMAGENET))}")
        name = IMAGENET[depth]
    elif name.startswith("detr://"):
        if name.removeprefix("detr://") not in DETR:
            raise InputError(f"{name}: no such model; choose from {', '.join('detr://' + key for key in DETR)}")
        name = DETR[name.removeprefix("detr://")]
    if name.startswith(("http://", "https://")):
        return _download(name)
    if "://" in name:
        raise InputError(f"weights {name!r}: unknown name; give a path, an https address, or a name such as detr://r50")
    if "?" in name:
        raise InputError(f"weights {name!r}: a path with a question mark, which Detectron2 cuts off; rename it")
    return Path(name)


def is_imagenet_weights(name: str) -> bool:
    """Return whether `name` stands for a backbone trained on ImageNet."""
    return bool(_DETECTRON2_NAME.fullmatch(name)) or name in IMAGENET.values()


def _download(url: str) -> Path:
    path = re.split("[?#]", url, maxsplit=1)[0].partition("://")[2].partition("/")[2]
    file_name = path.rpartition("/")[2]
    if file_name in ("", ".", ".."):
        raise InputError(f"weights {url!r}: the address does not end with a file name")
    sha256_prefix = _hash_in_file_name(file_name)
    if sha256_prefix:
        return download(url, cache_folder() / file_name, sha256_prefix=sha256_prefix)
    if not url.startswith("https:"):
        logger.warning("%s: neither https nor a hash in the file name protects this file from changes", url)
    # Without a hash in its name, model_final.pth may come from many addresses: each gets a folder.
    folder = cache_folder() / hashlib.sha256(url.encode()).hexdigest()[:12]
    return download(url, folder / file_name, check=check_file)


def _hash_in_file_name(file_name: str) -> str:
    """Return `e632da11` for `detr-r50-e632da11.pth` (PyTorch Hub's convention), "" if there is no hash, or a date."""
    match = re.search(r"-(?=\d*[a-f])([0-9a-f]{8,})\.\w+$", file_name)
    return match[1] if match else ""
