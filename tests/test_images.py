import io
import random
import warnings

import numpy as np
import pytest
from bad_images import BLUE, GREEN, READABLE, RED, UNREADABLE, encoded, halves, hundred_megapixels, photo
from PIL import Image

from featstore.errors import DecodeError
from featstore.images import decode, probe
from featstore.masks import read_mask

SIZES = {
    **{"plain.jpg": (60, 40), "grey.jpg": (60, 40), "cmyk.jpg": (60, 40), "grey16.png": (3, 1), "alpha.png": (8, 4)},
    **{
        "palette_alpha.png": (8, 4),
        "one_bit.png": (4, 4),
        "exif6.jpg": (32, 64),
        "animated.gif": (6, 5),
        "one.png": (1, 1),
    },
    'it\'s "quoted" & größer.png': (60, 40),
}


@pytest.mark.parametrize("name", READABLE)
def test_what_a_person_can_see_is_decoded_at_its_size(name: str) -> None:
    data = READABLE[name]()
    image, info = decode(data), probe(data)
    assert image.dtype == np.uint8
    assert image.flags.writeable
    assert image.flags.c_contiguous
    assert (info.width, info.height) == (image.shape[1], image.shape[0]) == SIZES[name]


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_nobody_can_see_says_why(name: str) -> None:
    words = {"empty.jpg": "the file is empty", "text.jpg": "not an image", "truncated.jpg": "truncated"}[name]
    with pytest.raises(DecodeError, match=words):
        decode(UNREADABLE[name]())


def test_exif_rotation_is_applied() -> None:
    image = decode(READABLE["exif6.jpg"]())
    assert np.abs(image[8, 16].astype(int) - RED).max() < 12
    assert np.abs(image[56, 16].astype(int) - BLUE).max() < 12


def test_transparency_lies_over_white() -> None:
    for name in ("alpha.png", "palette_alpha.png"):
        image = decode(READABLE[name]())
        assert image[0, 0].tolist() == list(RED)
        assert image[0, 7].tolist() == [255, 255, 255]


def test_sixteen_bits_become_eight_by_257() -> None:
    assert decode(READABLE["grey16.png"]()).tolist() == [[[0] * 3, [1] * 3, [255] * 3]]


def test_an_animation_is_its_first_frame() -> None:
    assert decode(READABLE["animated.gif"]())[2, 2].tolist() == list(GREEN)


def test_grey_and_cmyk_look_like_the_photograph_they_were_made_of() -> None:
    original = np.array(photo()).astype(int)
    grey = decode(READABLE["grey.jpg"]())
    assert (grey[..., 0] == grey[..., 2]).all()
    assert np.abs(grey[..., 0] - original @ [0.299, 0.587, 0.114]).mean() < 4
    assert np.abs(decode(READABLE["cmyk.jpg"]()) - original).mean() < 6


def test_floating_point_images_are_refused_with_advice() -> None:
    data = encoded(Image.fromarray(np.ones((3, 3), np.float32)), "TIFF")
    with pytest.raises(DecodeError, match="convert it"):
        decode(data)


def test_a_hundred_megapixels_are_decoded_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        assert decode(hundred_megapixels()).shape == (9100, 11000, 3)


def test_a_decompression_bomb_is_refused_with_advice() -> None:
    data = bytearray(encoded(Image.new("L", (1, 1)), "BMP"))
    data[18:26] = (60_000).to_bytes(4, "little") * 2
    with pytest.raises(DecodeError, match="too large"):
        probe(bytes(data))


def outcome(data: bytes) -> int | str:
    try:
        return decode(data).shape[2]
    except DecodeError as error:
        return "one line" if "\n" not in str(error) else str(error)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_damaged_files_give_an_image_or_a_decode_error_and_nothing_else(kind: str) -> None:
    whole = encoded(photo(), kind)
    generator = random.Random(kind)
    outcomes = set()
    for _ in range(120):
        data = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        if generator.random() < 0.5:
            del data[generator.randrange(len(data)) :]
        outcomes.add(outcome(bytes(data)))
    assert outcomes == {3, "one line"}


def test_masks_keep_their_indices() -> None:
    labels = np.array([[0, 15, 255], [1, 2, 3]], np.uint8)
    palette = Image.new("P", (3, 2))
    palette.putpalette([value for i in range(256) for value in (255 - i, i, 7)])
    palette.putdata(labels.reshape(-1).tolist())
    assert (read_mask(encoded(palette, "PNG")) == labels).all()
    assert (read_mask(encoded(Image.fromarray(labels), "PNG")) == labels).all()
    deep = np.array([[0, 300], [65535, 7]], np.uint16)
    assert (read_mask(encoded(Image.fromarray(deep), "PNG")) == deep).all()
    with pytest.raises(DecodeError, match="one index a pixel"):
        read_mask(encoded(halves(RED, BLUE), "PNG"))
    with pytest.raises(DecodeError):
        read_mask(io.BytesIO(b"no").getvalue())
