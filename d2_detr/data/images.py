"""Image files of any kind, read as the 8-bit RGB images that DETR is trained on."""

from __future__ import annotations

import errno
import glob
import os
import shlex
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from d2_detr.utils.errors import InputError

# Extensions that mark a file of a folder as an image. A file given by name may have any extension.
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
# The formats that are read, whatever the extension, by Pillow's name and as users know them: those that Pillow decodes
# itself. For others, such as EPS, it starts another program. TGA is last, because nothing in its first bytes marks it.
FORMATS = {
    "JPEG": "JPEG", "PNG": "PNG", "WEBP": "WebP", "BMP": "BMP", "TIFF": "TIFF", "GIF": "GIF", "AVIF": "AVIF",
    "PPM": "PPM", "JPEG2000": "JPEG 2000", "TGA": "TGA",
}  # fmt: skip
EXIF_ORIENTATION = 0x0112
# The last bytes of a complete file, by Pillow's name of the format. WebP is checked when it is opened.
END_MARKERS = {"GIF": b";", "JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "WEBP": b""}
# More than any camera has (199.8 million); decoded, such an image takes 0.8 GB.
MAX_PIXELS = 200_000_000
MAX_PIXELS_VARIABLE = "D2_DETR_MAX_PIXELS"

# Pillow warns of damaged EXIF data, which do not matter here, and of many pixels, for which there is a limit here.
for _category in (UserWarning, Image.DecompressionBombWarning):
    warnings.filterwarnings("ignore", category=_category, module=r"PIL\.")
_decoding = threading.Lock()


def find_images(names: Iterable[str]) -> list[Path]:
    """Find the images of paths, folders and patterns such as "photos/**/*.jpg".

    A folder stands for the images directly in it. The paths are sorted and unique.

    Raises:
        InputError: a name matches no image.
    """
    found: set[Path] = set()
    for name in names:
        path = Path(name)
        if path.is_file():
            matches = [path]
        elif path.is_dir():
            matches = [p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
        else:
            matches = [p for p in map(Path, glob.glob(name, recursive=True)) if p.is_file()]
        if not matches:
            raise InputError(f"{name}: {_explain_no_match(path)}")
        found.update(matches)
    return sorted(found)


def _explain_no_match(path: Path) -> str:
    if not path.is_dir():
        return "no such file or folder; give images, a folder of images, or a pattern such as 'photos/**/*.jpg'"
    suffixes = sorted({p.suffix for p in path.rglob("*") if p.suffix.lower() in SUFFIXES})
    if not suffixes:
        return "the folder has no images"
    patterns = shlex.join(f"{glob.escape(str(path))}/**/*{suffix}" for suffix in suffixes)
    return f"the images are in subfolders; give {patterns}"


def image_size(path: str | Path) -> tuple[int, int]:
    """Return width and height in pixels, with the EXIF orientation applied.

    Raises:
        FileNotFoundError: the file does not exist.
        InputError: the file is not an image, or too large.
    """
    with _open(path) as image:
        width, height = image.size
        return (height, width) if _orientation(image) in (5, 6, 7, 8) else (width, height)


def check_image(path: str | Path, annotated_wh: tuple[int, int] | None) -> None:
    """Check that an image exists, is complete and has the annotated size.

    Of a JPEG, PNG, GIF or WebP, only the header and the last bytes are read, unless it does not end as its format
    prescribes. An image of another format is decoded: whether it is complete cannot be seen otherwise.

    Args:
        annotated_wh: width and height in pixels, with or without the EXIF orientation applied; None accepts any size.

    Raises:
        FileNotFoundError: the file does not exist.
        InputError: the file is not an image, is too large or truncated, or has another size.
    """
    with _open(path) as image:
        stored_wh = image.size
        if not _has_end_marker(path, image.format):
            with _decoding:  # one at a time: the threads that check images would need a gigabyte each
                _load(image, path)
    if annotated_wh and annotated_wh != stored_wh and annotated_wh != (upright_wh := image_size(path)):
        raise InputError(_size_mismatch(path, upright_wh, annotated_wh))


def read_image(path: str | Path, format: str = "RGB", *, annotated_wh: tuple[int, int] | None = None) -> np.ndarray:
    """Read an image (H, W, 3), uint8.

    Gray, palette and CMYK images are converted to RGB, 16 bits are scaled to 8, and an alpha channel is dropped. The
    EXIF orientation is applied, unless `annotated_wh` is the size without it: some annotation tools ignore it.

    Args:
        format: order of the channels, "RGB" or "BGR".
        annotated_wh: width and height in pixels that the annotations refer to.

    Raises:
        FileNotFoundError: the file does not exist.
        InputError: the file is not an image, is too large or truncated, or has another size than annotated.
    """
    with _open(path) as image:
        _load(image, path)
        upright = ImageOps.exif_transpose(image) if _orientation(image) > 1 else image
        if annotated_wh and upright.size != annotated_wh:
            if image.size != annotated_wh:
                raise InputError(_size_mismatch(path, upright.size, annotated_wh))
            upright = image
    return convert_rgb(rgb_pixels(upright, path), format)


def convert_rgb(image: np.ndarray, format: str) -> np.ndarray:
    """Convert an image (H, W, 3) from RGB to "RGB" or "BGR", or back."""
    return image[:, :, ::-1] if format == "BGR" else image


def rgb_pixels(image: Image.Image, name: object) -> np.ndarray:
    """Convert a Pillow image of any mode to RGB pixels (H, W, 3), uint8.

    Args:
        name: how an error message refers to the image.

    Raises:
        InputError: the pixels are floating-point numbers.
    """
    _check_mode(image, name)
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
        gray = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def _size_mismatch(path: str | Path, size_wh: tuple[int, int], annotated_wh: tuple[int, int]) -> str:
    return (
        "{}: the image is {} x {} pixels, its annotation says width {} and height {}; correct the annotation, or "
        "restore the image if it was resized after it was annotated".format(path, *size_wh, *annotated_wh)
    )


def size_problem(width: int, height: int) -> str:
    """Return that an image is too large and what to do, or "".

    Raises:
        InputError: the environment variable that sets the limit is invalid.
    """
    return _too_large() if width * height > _max_pixels() else ""


def _too_large() -> str:
    return (
        f"the image has more than {_max_pixels():,} pixels; reduce it, or set the environment variable "
        f"{MAX_PIXELS_VARIABLE} to a larger number if the memory suffices"
    )


def _max_pixels() -> int:
    text = os.environ.get(MAX_PIXELS_VARIABLE, str(MAX_PIXELS))
    if not (text.isdecimal() and len(text) < 19 and int(text)):
        raise InputError(f"environment variable {MAX_PIXELS_VARIABLE}={text}: expected a number of pixels")
    return int(text)


@cache
def _known_formats() -> list[str]:
    """Return those of FORMATS that this version of Pillow has."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _open(path: str | Path) -> Image.Image:
    """Open an image, and check what its header tells: format, number of pixels, and their type."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such image")
    Image.MAX_IMAGE_PIXELS = _max_pixels()  # for Pillow's own checks, such as that of the frames of a GIF
    with _readable_errors(path, "the image is damaged; save it again"):
        try:
            image = Image.open(path, formats=_known_formats())
        except UnidentifiedImageError as error:
            formats = ", ".join(FORMATS.values())
            raise InputError(
                f"{path}: not an image of a known format ({formats}), or damaged; save it again"
            ) from error
    try:
        if problem := size_problem(*image.size):
            raise InputError(f"{path}: {problem}")
        _check_mode(image, path)
    except InputError:
        image.close()
        raise
    return image


def _check_mode(image: Image.Image, name: object) -> None:
    if image.mode == "F":
        raise InputError(f"{name}: pixels are floating-point numbers of unknown range; save it with 8 or 16 bits")


def _load(image: Image.Image, path: str | Path) -> None:
    with _readable_errors(path, "the image is damaged or truncated; save it again"):
        image.load()


@contextmanager
def _readable_errors(path: str | Path, problem: str) -> Iterator[None]:
    """Replace an error of Pillow, whose plugins raise all types, by an InputError with a problem and the reason."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: {_too_large()}") from error
    except Exception as error:
        # Other errors with a number are the system's; this one is of a place that a damaged image refers to.
        if isinstance(error, InputError) or getattr(error, "errno", None) not in (None, errno.EINVAL):
            raise
        reason = "not enough memory" if isinstance(error, MemoryError) else str(error) or type(error).__name__
        raise InputError(f"{path}: {problem} ({reason})") from error


def _has_end_marker(path: str | Path, format: str | None) -> bool:
    """Return whether a file ends as its format prescribes; False if the format prescribes nothing."""
    if format not in END_MARKERS:
        return False
    end = END_MARKERS[format]
    with open(path, "rb") as file:
        file.seek(-min(len(end), Path(path).stat().st_size), os.SEEK_END)
        return file.read() == end


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # malformed EXIF data, which do not affect the pixels
        return 1
