import numpy as np
import pytest
from bad_images import BLUE, RED, encoded, halves
from PIL import Image

from featstore.errors import DecodeError
from featstore.masks import probe_mask, read_mask

LABELS = np.array([[0, 15, 255], [1, 2, 3]], np.uint8)


def palette() -> Image.Image:
    """Labels whose colours are nothing like them."""
    image = Image.fromarray(LABELS).convert("P")
    image.putpalette([value for i in range(256) for value in (255 - i, i, 7)])
    return image


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_a_palette_s_indices_are_the_labels(kind: str) -> None:
    data = encoded(palette(), kind)
    with_alpha = encoded(palette(), "PNG", transparency=0)
    for mask in (read_mask(data), read_mask(with_alpha)):
        assert mask.dtype == np.uint8
        assert (mask == LABELS).all()


def test_grey_values_are_the_labels() -> None:
    assert (read_mask(encoded(Image.fromarray(LABELS), "PNG")) == LABELS).all()
    assert read_mask(encoded(Image.fromarray(np.eye(3, dtype=bool)), "PNG")).tolist() == np.eye(3).tolist()


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_sixteen_bits_stay_sixteen(dtype: type) -> None:
    deep = np.array([[0, 300], [65535, 7]], dtype)
    mask = read_mask(encoded(Image.fromarray(deep), "TIFF"))
    assert mask.dtype == np.uint16
    assert (mask == deep).all()


def test_values_beyond_sixteen_bits_are_refused_with_their_range() -> None:
    with pytest.raises(DecodeError, match="from 3 to 70000"):
        read_mask(encoded(Image.fromarray(np.array([[3, 70_000]], np.int32)), "TIFF"))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colours_are_refused_before_and_while_reading(mode: str) -> None:
    data = encoded(halves(RED, BLUE).convert(mode), "PNG")
    for read in (probe_mask, read_mask):
        with pytest.raises(DecodeError, match=f"one index a pixel .* this file is {mode}"):
            read(data)


def test_a_turned_mask_lies_on_its_turned_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(palette(), "PNG", exif=exif)
    assert (read_mask(data) == np.rot90(LABELS, -1)).all()
    assert (probe_mask(data).width, probe_mask(data).height) == (2, 3)


@pytest.mark.parametrize("data", [b"", b"no mask", encoded(Image.fromarray(LABELS), "PNG")[:50]])
def test_what_is_no_image_is_no_mask(data: bytes) -> None:
    with pytest.raises(DecodeError):
        read_mask(data)
