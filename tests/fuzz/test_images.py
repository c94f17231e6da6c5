"""Any damaged image is read, or refused by an InputError; one that passes the check has the size that it tells."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from d2_detr.data.images import END_MARKERS, check_image, image_size, read_image
from d2_detr.inference.prediction import image_pixels
from d2_detr.utils.errors import InputError
from tests.fuzz.strategies import ENCODINGS, LONG, SHORT, damaged, encoded_images, only_input_errors

FORMATS = [name for name in ENCODINGS if name != "AVIF" or features.check("avif")]


@pytest.fixture(autouse=True)
def few_pixels(monkeypatch):
    monkeypatch.setenv("D2_DETR_MAX_PIXELS", "4000000")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "a.image"


def read(path, data):
    path.write_bytes(data)
    with only_input_errors():
        pixels = read_image(path)
        assert pixels.dtype == np.uint8 and pixels.shape[2:] == (3,)
        assert image_size(path) == (pixels.shape[1], pixels.shape[0])
        check_image(path, (pixels.shape[1], pixels.shape[0]))
    with only_input_errors():
        check_image(path, None)
        with Image.open(path) as image:
            is_decoded_by_the_check = image.format not in END_MARKERS
        if is_decoded_by_the_check:
            try:
                read_image(path)
            except InputError as error:
                raise AssertionError("the check accepts it") from error
    with only_input_errors():
        image_size(path)


@SHORT
@given(encoded_images(FORMATS))
def test_images_of_every_format_mode_and_size_are_read(path, data):
    path.write_bytes(data)
    with Image.open(path) as image:
        mode, size_wh = image.mode, image.size
    if mode == "F":
        with pytest.raises(InputError, match="floating-point"):
            check_image(path, None)
        return
    check_image(path, size_wh)
    pixels = read_image(path, annotated_wh=size_wh)
    assert pixels.shape == (*size_wh[::-1], 3)
    np.testing.assert_array_equal(pixels, image_pixels(path) if image_size(path) == size_wh else pixels)


@pytest.mark.parametrize("format", FORMATS)
@SHORT
@given(data=st.data())
def test_damaged_images_are_read_or_refused(path, format, data):
    read(path, data.draw(damaged(data.draw(encoded_images([format])))))


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@LONG
@given(data=st.data())
def test_thousands_of_damaged_images_are_read_or_refused(path, format, data):
    read(path, data.draw(damaged(data.draw(encoded_images([format])))))


@SHORT
@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_refused(path, data):
    read(path, data)
