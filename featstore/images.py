"""Decode images the way a person expects to see them; anything else is a DecodeError of one line."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from .errors import DecodeError

__all__ = ["ImageInfo", "decode", "probe"]

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image of each EXIF orientation upright; Pillow counts its angles anticlockwise."""

SWAPPING = frozenset({5, 6, 7, 8})
"""EXIF orientations that exchange width and height."""

ORIENTATION, TIFF_WIDTH, TIFF_HEIGHT = 0x0112, 256, 257
PNG_MARKS = (b"eXIf", b"iTXtXML:com.adobe.xmp", b"iTXtRaw profile", b"tEXtRaw profile", b"zTXtRaw profile")
"""How the chunks begin that can give a PNG an orientation."""

SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")

# One thread must not restore what another just silenced, so this stands once and for all: 90 to 179 megapixels are fine.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True)
class ImageInfo:
    """Size after EXIF orientation [pixels] and Pillow's mode of the file."""

    width: int
    height: int
    mode: str


def probe(data: bytes) -> ImageInfo:
    """Read an image's header, not its pixels; raises DecodeError where it is none."""
    with opened(data) as image:
        width, height = image.size
        if image.format == "TIFF":  # newer Pillows have exchanged a TIFF's width and height by now, older ones have not
            tags = image.getexif()
            width, height = int(tags.get(TIFF_WIDTH, width)), int(tags.get(TIFF_HEIGHT, height))
        # Asked for its EXIF, a PNG decodes all its pixels in case the block comes behind them: ask only where there is one.
        asked = image.format != "PNG" or png_is_marked(data)
        if asked and orientation(image) in SWAPPING:
            width, height = height, width
        return ImageInfo(width, height, image.mode)


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode to (h, w, 3) RGB in [0, 255], upright, contiguous and writable.

    EXIF orientation is applied (a broken EXIF block counts as none); grey is replicated; transparency is laid over white;
    CMYK, YCbCr and LAB are converted by Pillow; 16-bit grey is divided by 257 and rounded; of an animation or a multi-page
    file the first frame is taken. Raises DecodeError for an empty, truncated, unknown, floating-point or too large
    (179 megapixels) file.
    """
    with opened(data) as image:
        return np.array(to_rgb(upright(image)), dtype=np.uint8)


def upright(image: Image.Image) -> Image.Image:
    """Load an image and turn it by its EXIF orientation."""
    image.load()  # before the orientation is asked for: it may stand behind the pixels, and TIFFs turn themselves here
    turn = TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none or nobody can read it."""
    try:
        value = image.getexif().get(ORIENTATION)
        return value if value in TURNS else 1
    except Exception:  # the pixels may well be fine, and if they are not, decoding says so
        return 1


@contextmanager
def opened(data: bytes) -> Iterator[Image.Image]:
    """Open with Pillow, whose many ways to fail become DecodeError."""
    if not data:
        raise DecodeError("the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            yield image
    except DecodeError:
        raise
    except UnidentifiedImageError:
        raise DecodeError("this is not an image that Pillow knows, or only the beginning of one") from None
    except Image.DecompressionBombError as error:
        raise DecodeError(f"the image is too large: {one_line(error)}; make it smaller") from error
    except MemoryError as error:
        raise DecodeError("the image does not fit into memory") from error
    except Exception as error:
        reason = one_line(error)
        cut = "truncated" in reason.lower() or isinstance(error, EOFError) or shorter_than_it_says(data)
        raise DecodeError(f"the file is {'truncated' if cut else 'damaged'}, fetch it again: {reason}") from error


def shorter_than_it_says(data: bytes) -> bool:
    """Whether a WebP ends before the length in its header, which Pillow does not tell from other damage."""
    return data[:4] == b"RIFF" and len(data) < 8 + int.from_bytes(data[4:8], "little")


def png_is_marked(data: bytes) -> bool:
    """Whether one of a PNG's chunks, before or behind the pixels, can give it an orientation."""
    place = 8
    while place + 8 <= len(data):
        if data.startswith(PNG_MARKS, place + 4):
            return True
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return False


def one_line(error: Exception) -> str:
    """Return an error's text without line breaks, its class where there is no text."""
    return " ".join(str(error).split()) or type(error).__name__


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an upright image of any mode to RGB."""
    if image.mode == "F":
        raise DecodeError("the image holds floating-point values: convert it to 8 or 16 bits first")
    if image.mode in SIXTEEN_BIT:
        return from_sixteen_bit(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        overlaid = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", overlaid.size, "white"), overlaid)
    return image if image.mode == "RGB" else image.convert("RGB")


def from_sixteen_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits: 65535 becomes 255."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise DecodeError("the image holds values beyond 16 bits: convert it to 8 or 16 bits first")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8)).convert("RGB")
