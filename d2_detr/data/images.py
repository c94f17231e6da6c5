"""Reading picture files of any kind as the 8-bit pictures that DETR learns from."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from d2_detr.utils.errors import InputError

# Which files of a folder are pictures; a file that is named is taken for one in any case.
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
EXIF_ORIENTATION = 0x0112
# The last bytes of a whole file, of the formats that most pictures have.
ENDS = {"GIF": b";", "JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height in pixels as the picture is shown, that is with its EXIF orientation applied.

    Raises:
        FileNotFoundError, InputError: no such file, or not a picture.
    """
    with _open(path) as picture:
        width, height = picture.size
        return (height, width) if _orientation(picture) in (5, 6, 7, 8) else (width, height)


def check_image(path: str | Path, annotated_wh: tuple[int, int] | None) -> None:
    """Whether a picture is there, whole, and has the annotated size (if any), as shown or as stored.

    Its header is looked at and, of JPEG, PNG and GIF, its end; where that is not as it should be, all of it is read.

    Raises:
        FileNotFoundError, InputError: no such file, not a picture, cut short, or of another size.
    """
    with _open(path) as picture:
        stored_wh = picture.size
        if not _ends_whole(path, picture.format):
            _load(picture, path)
    if annotated_wh and annotated_wh not in (stored_wh, shown_wh := image_size(path)):
        raise InputError(_size_mismatch(path, shown_wh, annotated_wh))


def read_image(path: str | Path, format: str = "RGB", *, annotated_wh: tuple[int, int] | None = None) -> np.ndarray:
    """Read a picture (H, W, C), uint8.

    Grey, palette, CMYK and alpha (which is dropped) become RGB; 16 bits are scaled to 8. The EXIF orientation is
    applied, unless `annotated_wh` says that the picture was annotated as it is stored: some tools do not turn it.

    Args:
        format: "RGB" or "BGR", the order of the channels.
        annotated_wh: width and height in pixels that the annotations were made for.

    Raises:
        FileNotFoundError, InputError: no such file, not a picture, cut short, or of another size than annotated.
    """
    with _open(path) as picture:
        _load(picture, path)
        upright = ImageOps.exif_transpose(picture) if _orientation(picture) > 1 else picture
        if annotated_wh and upright.size != annotated_wh:
            if picture.size != annotated_wh:
                raise InputError(_size_mismatch(path, upright.size, annotated_wh))
            upright = picture
    pixels = rgb_pixels(upright, path)
    return pixels[:, :, ::-1] if format == "BGR" else pixels


def _size_mismatch(path: str | Path, size_wh: tuple[int, int], annotated_wh: tuple[int, int]) -> str:
    return (
        "{}: the picture is {} x {} pixels, its annotation says width {} and height {}; was the picture resized after "
        "it was annotated?".format(path, *size_wh, *annotated_wh)
    )


def _open(path: str | Path) -> Image.Image:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such picture")
    try:
        return Image.open(path)
    except (PermissionError, MemoryError):
        raise
    except Exception as error:  # every plugin of Pillow stumbles in its own way
        raise InputError(f"{path}: not a picture that Pillow can read ({type(error).__name__})") from error


def _load(picture: Image.Image, path: str | Path) -> None:
    try:
        picture.load()
    except Exception as error:  # damaged bytes make the decoders stumble in many ways
        raise InputError(f"{path}: the picture is damaged or cut short ({error}); save it again") from error


def _ends_whole(path: str | Path, format: str | None) -> bool:
    """Whether the file ends as its format does, as far as that is known here."""
    end = ENDS.get(format, b"")
    with open(path, "rb") as file:
        file.seek(-min(len(end), Path(path).stat().st_size), os.SEEK_END)
        return file.read() == end


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # malformed EXIF data raise anything, and say nothing about the pixels
        return 1


def rgb_pixels(picture: Image.Image, name: object) -> np.ndarray:
    """The pixels (H, W, 3), uint8, of a picture of any mode of Pillow's; `name` is what messages call it.

    Raises:
        InputError: the pixels are floating point numbers.
    """
    if picture.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        grey = (np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.mode == "F":
        raise InputError(f"{name}: pixels are floating point numbers of unknown range; save it with 8 or 16 bits")
    return np.asarray(picture.convert("RGB"))
