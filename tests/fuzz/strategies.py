"""Valid files of every kind, and ways to damage them; what one damaged file may cost."""

import contextlib
import copy
import io
import resource
import time

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image

from d2_detr.utils.errors import InputError

SECONDS, MEGABYTES = 20, 600  # that one input may take; the machine may be busy
SHORT, LONG = (
    settings(
        max_examples=number,
        deadline=None,
        derandomize=number < 1000,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    for number in (60, 4000)
)


@contextlib.contextmanager
def only_input_errors():
    """Let the errors pass that a user can fix; fail on all others, and on an input that takes too much."""
    memory, start = _peak_memory(), time.monotonic()
    with contextlib.suppress(InputError, FileNotFoundError):
        yield
    assert time.monotonic() - start < SECONDS, "time"
    assert _peak_memory() - memory < MEGABYTES, "memory"


def _peak_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# ---- bytes

ENCODINGS = {
    "PNG": ({"optimize": False}, "1 L LA P RGB RGBA I;16"),
    "JPEG": ({"quality": 80}, "L RGB CMYK"),
    "GIF": ({}, "1 L P RGB"),
    "BMP": ({}, "1 L P RGB RGBA"),
    "TIFF": ({"compression": "raw"}, "1 L LA P RGB RGBA CMYK YCbCr LAB I;16 I F"),
    "WEBP": ({"lossless": True}, "RGB RGBA"),
    "PPM": ({}, "1 L RGB"),
    "JPEG2000": ({}, "L LA RGB RGBA"),
    "TGA": ({}, "1 L LA P RGB RGBA"),
    "AVIF": ({"speed": 10}, "RGB RGBA"),
}
OTHER_OPTIONS = {
    "JPEG": [{"progressive": True}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"}],
    "TIFF": [{"compression": name} for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4")],
    "WEBP": [{"quality": 50}],
    "TGA": [{"compression": "tga_rle"}],
}
# The modes that a compression has: with others, older versions of Pillow crash or write what is in the memory.
COMPRESSED_MODES = {"jpeg": "L RGB CMYK", "group4": "1", "tga_rle": "L LA P RGB RGBA"}


@st.composite
def encoded_images(draw, formats=tuple(ENCODINGS)):
    """The bytes of an image of any format, mode and size."""
    name = draw(st.sampled_from(formats))
    options, modes = ENCODINGS[name]
    options = draw(st.sampled_from([options, *OTHER_OPTIONS.get(name, ())]))
    mode = draw(st.sampled_from(COMPRESSED_MODES.get(options.get("compression"), modes).split()))
    width, height = draw(st.tuples(*[st.sampled_from([1, 2, 3, 8, 17, 64])] * 2))
    pixels = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257) if mode == "I;16" else _convert(image, mode)
    buffer = io.BytesIO()
    try:
        image.save(buffer, name, **options)
    except (OSError, ValueError, RuntimeError):  # an encoding that does not have the mode
        buffer = io.BytesIO()
        image.save(buffer, name, **ENCODINGS[name][0])
    return buffer.getvalue()


def _convert(image, mode):
    if mode == "LAB":
        return Image.frombytes("LAB", image.size, image.tobytes())
    return image.convert(mode)


@st.composite
def damaged(draw, original):
    """Bytes with a few changes: other bytes, a part left out, repeated or moved, an end that is missing or added."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(1, 16))
        kind = draw(st.sampled_from(["flip", "flip", "byte", "byte", "fill", "cut", "repeat", "insert", "truncate"]))
        if kind == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte" and at < len(data):
            data[at] = draw(st.integers(0, 255))
        elif kind == "fill":
            data[at : at + length] = draw(st.sampled_from([b"\0", b"\xff", b"\x7f"])) * len(data[at : at + length])
        elif kind == "cut":
            del data[at : at + length]
        elif kind == "repeat":
            data[at:at] = data[at : at + length]
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=16))
        elif kind == "truncate":
            del data[at:]
    return bytes(data)


# ---- JSON

NUMBERS = [
    0, 1, -1, 2, 3, 7, 0.5, 1e-9, 1.5, -0.0, 64, 65, 1e7, 1e9, -1e9, 2**31, 2**32, 2**63, -(2**63), 2**64, 1e30, 1e308,
    10**400, float("inf"), float("nan"),
]  # fmt: skip
TEXTS = [
    "", "0", "1", "false", "-1", "1.5", "NaN", "a.png", "../a.png", "/etc/passwd", "/dev/zero", "..", ".", "~", "a\0b",
    "\ud83d", "é" * 300, "x" * 5000, "con", "a/b/../../..", "none", "polygon", "circle", "ellipse", "\x1b[31m", "%s{0}",
]  # fmt: skip
nasty = st.one_of(
    st.sampled_from([*NUMBERS, *TEXTS, None, True, False]),
    st.sampled_from([[], {}, [[]], [{}], [None], {"": None}, [[[[[[1]]]]]], [1, 2, 3, 4], [[1, 1, 9, 1, 9, 9]]]),
    st.builds(lambda depth: _nested(depth), st.sampled_from([50, 300, 600])),
    st.floats(-200, 200),
    st.lists(st.floats(-200, 200), max_size=10),
    st.builds(lambda counts: {"size": [64, 64], "counts": counts}, st.lists(st.integers(-5, 5000), max_size=5)),
    st.builds(lambda counts: {"size": [64, 64], "counts": counts}, st.text(max_size=6)),
)


def _nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@st.composite
def mutated(draw, original):
    """JSON content in which a few values, anywhere, are replaced, removed, repeated or exchanged."""
    content = copy.deepcopy(original)
    for _ in range(draw(st.integers(1, 3))):
        parent, key = draw(st.sampled_from(_places(content)))
        kind = draw(st.sampled_from(["replace", "replace", "replace", "remove", "repeat", "exchange"]))
        if kind == "replace":
            parent[key] = copy.deepcopy(draw(nasty))
        elif kind == "remove":
            del parent[key]
        elif kind == "repeat" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        elif kind == "exchange":
            other, other_key = draw(st.sampled_from(_places(content)))
            parent[key], other[other_key] = copy.deepcopy(other[other_key]), copy.deepcopy(parent[key])
        if not _places(content):
            break
    return content


def _places(content, depth=12):
    """Every (container, key) in JSON content, most of them near the top."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    places = []
    for key, value in list(items) if depth else ():
        places += [(content, key), *_places(value, depth - 1)]
    return places
