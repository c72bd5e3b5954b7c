import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bad_images import BLUE, GREEN, READABLE, RED, UNREADABLE, encoded, hundred_megapixels, photo
from PIL import Image, ImageFile

from featstore.errors import DecodeError
from featstore.images import decode, probe

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


TURNED = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).transpose(1, 0, 2),
    8: lambda pixels: np.rot90(pixels, 1),
}
"""What EXIF says each orientation does to the stored pixels to be seen upright."""


@pytest.mark.parametrize("turn", TURNED)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_every_orientation_is_upright_and_probed_as_it_is_decoded(kind: str, turn: int) -> None:
    stored = np.array(photo())
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encoded(photo(), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    image, info = decode(data), probe(data)
    assert (image == TURNED[turn](stored)).all()
    assert (info.height, info.width) == image.shape[:2]


def late(data: bytes) -> bytes:
    """Move a PNG's EXIF chunk behind its pixels, where it may stand as well."""
    start = data.index(b"eXIf") - 4
    chunk = data[start : start + 12 + int.from_bytes(data[start : start + 4], "big")]
    rest = data.replace(chunk, b"")
    return rest[:-12] + chunk + rest[-12:]


def test_an_orientation_behind_the_pixels_counts() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = late(encoded(photo(), "PNG", exif=exif))
    assert data.index(b"eXIf") > data.index(b"IDAT")
    assert (decode(data) == TURNED[6](np.array(photo()))).all()
    assert (probe(data).width, probe(data).height) == (40, 60)


@pytest.mark.parametrize("block", [b"garbage!" * 4, b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08", b""])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_broken_exif_block_does_not_cost_the_picture(kind: str, block: bytes) -> None:
    data = encoded(photo(), kind, exif=b"Exif\0\0" + block, **({"lossless": True} if kind == "WEBP" else {}))
    assert (decode(data) == np.array(photo())).all()
    assert (probe(data).width, probe(data).height) == (60, 40)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_the_header_is_read_without_the_pixels(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: ImageFile.ImageFile) -> None:
        raise AssertionError("the pixels were decoded")

    data = encoded(photo(), kind)
    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert (probe(data).width, probe(data).height, probe(data).mode) == (60, 40, "RGB")


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
    assert np.abs(decode(encoded(photo().convert("CMYK"), "TIFF")) - original).mean() < 1


def test_floating_point_images_are_refused_with_advice() -> None:
    data = encoded(Image.fromarray(np.ones((3, 3), np.float32)), "TIFF")
    with pytest.raises(DecodeError, match="convert it"):
        decode(data)


def test_half_transparent_is_half_white() -> None:
    for mode, pixel, seen in (("RGBA", (255, 0, 0, 128), (255, 127, 127)), ("LA", (0, 128), (127, 127, 127))):
        assert decode(encoded(Image.new(mode, (2, 2), pixel), "PNG"))[0, 0].tolist() == list(seen)


def test_integers_of_sixteen_bits_are_scaled_and_larger_ones_refused() -> None:
    values = np.array([[0, 128, 129, 32896, 65535]], np.int32)
    assert decode(encoded(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    for beyond in (-1, 65536):
        with pytest.raises(DecodeError, match="beyond 16 bits: convert it"):
            decode(encoded(Image.fromarray(np.array([[0, beyond]], np.int32)), "TIFF"))


def test_a_tiff_of_many_pages_is_its_first() -> None:
    pages = [Image.new("RGB", (3, 2), colour) for colour in (BLUE, RED)]
    image = decode(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert image.tolist() == [[list(BLUE)] * 3] * 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_half_a_file_is_never_half_a_picture(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises(DecodeError, match="truncated, fetch it again"):
        decode(data[: int(len(data) * share)])


@pytest.mark.slow
def test_a_hundred_megapixels_are_decoded_without_a_word() -> None:
    script = "import sys; from featstore.images import decode; print(decode(sys.stdin.buffer.read()).shape)"
    for options in ([], ["-W", "error"]):  # a process of its own: pytest takes over this one's warnings
        command = [sys.executable, *options, "-c", script]
        done = subprocess.run(
            command, input=hundred_megapixels(), capture_output=True, cwd=Path(__file__).parents[1], check=False
        )
        assert (done.stdout.strip(), done.stderr) == (b"(9100, 11000, 3)", b"")


def test_a_decompression_bomb_is_refused_with_advice() -> None:
    data = bytearray(encoded(Image.new("L", (1, 1)), "BMP"))
    data[18:26] = (60_000).to_bytes(4, "little") * 2
    with pytest.raises(DecodeError, match="too large"):
        probe(bytes(data))


def outcome(data: bytes) -> int | str:
    try:
        probe(data)
        return decode(data).shape[2]
    except DecodeError as error:
        return "one line" if "\n" not in str(error) else str(error)


@pytest.mark.filterwarnings("ignore:Truncated File Read", "ignore:Corrupt EXIF data", "ignore:Metadata Warning")
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
