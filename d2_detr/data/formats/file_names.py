"""Names of image files in annotation files, which must not lead out of the dataset."""

from __future__ import annotations

import os
from pathlib import Path

from d2_detr.utils.errors import InputError

MAX_NAME, MAX_PATH = 255, 1024  # bytes; what every file system and operating system takes


def image_path(folder: str | Path, name: str, root: Path | None = None) -> Path:
    """Return the path of an image that an annotation file names.

    Only the name is looked at: what symbolic links in the folder point to is up to the user.

    Args:
        folder: the folder of the images, to which the name is relative.
        name: the name; an absolute path must be in `root`.
        root: a folder above, such as that of the dataset, which the name must not leave; by default `folder`.

    Raises:
        InputError: the path is outside `root`, or no file can have the name.
    """
    if not _is_possible(name):
        raise InputError(f"the image {name!r:.100} has a name that no file can have; correct it")
    if not os.path.isabs(name) and ".." not in name:
        return Path(folder, name)  # as nearly always
    outermost = root or folder
    path = os.path.normpath(os.path.join(os.path.abspath(folder), name))
    if not (_is_in(path, os.path.abspath(outermost)) or _is_in(path, os.path.realpath(outermost))):
        raise InputError(
            f"the image {name!r:.200} is outside the folder {outermost}; move it there, or link its folder there with "
            "ln -s, and correct the name"
        )
    return Path(path)


def _is_possible(name: str) -> bool:
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError:  # JSON may have one half of a character of two codes
        return False
    return b"\0" not in encoded and len(encoded) <= MAX_PATH and max(map(len, encoded.split(b"/"))) <= MAX_NAME


def _is_in(path: str, folder: str) -> bool:
    return os.path.commonpath((path, folder)) == folder
