"""Images of every kind are read as 8-bit RGB; errors name the file."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from d2_detr.data.images import check_image, image_size, read_image
from d2_detr.utils.errors import InputError

from detectron2.data.detection_utils import read_image as detectron2_read_image

WIDTH, HEIGHT = 30, 20
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
GRAY = PIXELS[:, :, 0]


def repeated(gray):
    return np.repeat(gray[:, :, None], 3, axis=2)


def sixteen_bits(name):
    return Image.fromarray(GRAY.astype(np.uint16) * 256 + 77), name, repeated(GRAY)


KINDS = {
    "rgb": (Image.fromarray(PIXELS), "a.png", PIXELS),
    "gray": (Image.fromarray(GRAY), "a.png", repeated(GRAY)),
    "alpha": (Image.fromarray(np.dstack([PIXELS, GRAY])), "a.png", PIXELS),
    "gray_and_alpha": (Image.fromarray(np.dstack([GRAY, 255 - GRAY])), "a.png", repeated(GRAY)),
    "palette": (Image.fromarray(PIXELS // 64 * 64).convert("P", palette=Image.Palette.WEB), "a.gif", None),
    "one_bit": (Image.fromarray(GRAY > 127), "a.png", repeated(np.where(GRAY > 127, 255, 0).astype(np.uint8))),
    "sixteen_bits_png": sixteen_bits("a.png"),
    "sixteen_bits_tiff": sixteen_bits("a.tiff"),
    "cmyk": (Image.fromarray(PIXELS).convert("CMYK"), "a.tiff", PIXELS),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_becomes_8_bit_rgb(tmp_path, kind):
    image, name, expected = KINDS[kind]
    image.save(tmp_path / name)
    pixels = read_image(tmp_path / name)
    assert pixels.dtype == np.uint8 and pixels.shape == (HEIGHT, WIDTH, 3)
    if expected is not None:
        np.testing.assert_array_equal(pixels, expected)
    np.testing.assert_array_equal(read_image(tmp_path / name, "BGR"), pixels[:, :, ::-1])


@pytest.mark.parametrize("kind", ["rgb", "gray", "alpha", "palette", "one_bit", "cmyk"])
def test_8_bit_images_are_read_like_in_detectron2(tmp_path, kind):
    image, name, _ = KINDS[kind]
    image.save(tmp_path / name)
    for format in ("RGB", "BGR"):
        np.testing.assert_array_equal(
            read_image(tmp_path / name, format), detectron2_read_image(str(tmp_path / name), format)
        )


def rotated(path, orientation):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
def test_the_exif_orientation_is_applied_to_pixels_and_size(tmp_path, orientation):
    path = rotated(tmp_path / "a.png", orientation)
    with Image.open(path) as saved:
        upright = ImageOps.exif_transpose(saved)
    assert image_size(path) == upright.size
    assert image_size(path) == ((HEIGHT, WIDTH) if orientation and orientation >= 5 else (WIDTH, HEIGHT))
    np.testing.assert_array_equal(read_image(path), np.asarray(upright))
    np.testing.assert_array_equal(read_image(path, annotated_wh=upright.size), np.asarray(upright))


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_an_image_annotated_as_stored_is_not_rotated(tmp_path, orientation):
    path = rotated(tmp_path / "a.png", orientation)
    np.testing.assert_array_equal(read_image(path, annotated_wh=(WIDTH, HEIGHT)), PIXELS)
    check_image(path, (WIDTH, HEIGHT))
    check_image(path, (HEIGHT, WIDTH))


@pytest.mark.parametrize("check", [lambda path, wh: read_image(path, annotated_wh=wh), check_image])
def test_size_mismatch_is_an_error_with_both_sizes(tmp_path, check):
    path = rotated(tmp_path / "a.png", 6)
    with pytest.raises(InputError, match=r"a\.png: the image is 20 x 30 pixels, its annotation says width 64 and he"):
        check(path, (64, 48))


def test_malformed_exif_data_are_ignored(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff garbage")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), PIXELS)
    assert image_size(tmp_path / "a.png") == (WIDTH, HEIGHT)


def encoded(format):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(buffer, format)
    return buffer.getvalue()


ENCODINGS = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "TGA", "AVIF"]


@pytest.mark.parametrize("check", [read_image, lambda path: check_image(path, None)], ids=["read", "check"])
@pytest.mark.parametrize("format", ENCODINGS)
@pytest.mark.parametrize("fraction", [0, 0.02, 0.5, 0.9])
def test_a_truncated_image_is_an_error(tmp_path, format, fraction, check):
    complete = encoded(format)
    path = tmp_path / f"a.{format.lower()}"
    path.write_bytes(complete[: int(len(complete) * fraction)])
    with pytest.raises(InputError, match=rf"a\.{format.lower()}: (not an image|the image is damaged)"):
        check(path)


@pytest.mark.parametrize("format", ENCODINGS)
@pytest.mark.parametrize("trailer", [b"", b"data that some cameras append"], ids=["plain", "trailer"])
def test_a_complete_image_is_accepted(tmp_path, format, trailer):
    path = tmp_path / "a.image"
    path.write_bytes(encoded(format) + trailer)
    check_image(path, (200, 200))
    assert read_image(path).shape == (200, 200, 3)


def test_formats_for_which_pillow_starts_programs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.check_call", pytest.fail)
    for format in ("EPS", "ICNS"):
        (tmp_path / "a.jpg").write_bytes(encoded(format))
        for check in (read_image, image_size, lambda path: check_image(path, None)):
            with pytest.raises(InputError, match=r"a\.jpg: not an image of a known format \(JPEG, .*\), or damaged"):
                check(tmp_path / "a.jpg")


@pytest.mark.parametrize("check", [read_image, image_size, lambda path: check_image(path, None)])
def test_the_number_of_pixels_is_limited_before_decoding(tmp_path, monkeypatch, check):
    path = tmp_path / "a.png"
    Image.new("1", (20_000, 20_000)).save(path)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", pytest.fail)
    with pytest.raises(
        InputError, match=r"a\.png: .* more than 200,000,000 pixels; reduce it, or set .* D2_DETR_MAX_PI"
    ):
        check(path)


def test_the_limit_of_pixels_can_be_changed(tmp_path, monkeypatch, recwarn):
    Image.new("1", (12_000, 9_000)).save(tmp_path / "a.png")
    check_image(tmp_path / "a.png", None)  # a photograph of 108 megapixels
    assert not recwarn.list
    monkeypatch.setenv("D2_DETR_MAX_PIXELS", "1000")
    with pytest.raises(InputError, match=r"a\.png: the image has more than 1,000 pixels"):
        check_image(tmp_path / "a.png", None)
    for text in ("", "many", "0", "-1", "9" * 30):
        monkeypatch.setenv("D2_DETR_MAX_PIXELS", text)
        with pytest.raises(InputError, match="environment variable D2_DETR_MAX_PIXELS=.*: expected a number of pixels"):
            check_image(tmp_path / "a.png", None)


@pytest.mark.parametrize("check", [read_image, image_size])
def test_a_missing_or_invalid_image_is_an_error(tmp_path, check):
    (tmp_path / "a.jpg").write_text("<html>404</html>")
    with pytest.raises(InputError, match=r"a\.jpg: not an image"):
        check(tmp_path / "a.jpg")
    with pytest.raises(FileNotFoundError, match=r"b\.jpg: no such image"):
        check(tmp_path / "b.jpg")


def test_floating_point_pixels_are_an_error(tmp_path):
    Image.fromarray(PIXELS[:, :, 0].astype(np.float32)).save(tmp_path / "a.tiff")
    for check in (read_image, lambda path: check_image(path, None)):
        with pytest.raises(InputError, match=r"a\.tiff: pixels are floating-point"):
            check(tmp_path / "a.tiff")
