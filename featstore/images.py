"""Decode images the way a person expects to see them; anything else is a DecodeError of one line."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import DecodeError

__all__ = ["ImageInfo", "decode", "probe"]

SWAPPING = frozenset({5, 6, 7, 8})
"""EXIF orientations that exchange width and height."""

ORIENTATION = 0x0112
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
    """Read an image's header; raises DecodeError where it is none."""
    with opened(data) as image:
        width, height = image.size
        if image.getexif().get(ORIENTATION) in SWAPPING:
            width, height = height, width
        return ImageInfo(width, height, image.mode)


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode to (h, w, 3) RGB, upright, contiguous and writable.

    EXIF orientation is applied; grey is replicated; transparency is laid over white; CMYK, YCbCr and LAB are converted by
    Pillow; 16-bit grey is divided by 257; of an animation or a multi-page file the first frame is taken. Raises DecodeError
    for an empty, truncated, unknown, floating-point or too large (179 megapixels) file.
    """
    with opened(data) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
        return np.array(to_rgb(upright), dtype=np.uint8)


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
        raise DecodeError("this is not an image that Pillow knows") from None
    except Image.DecompressionBombError as error:
        raise DecodeError(f"the image is too large: {one_line(error)}; make it smaller") from error
    except MemoryError as error:
        raise DecodeError("the image does not fit into memory") from error
    except Exception as error:
        reason = one_line(error)
        word = "the file is truncated" if "truncated" in reason.lower() or isinstance(error, EOFError) else "unreadable"
        raise DecodeError(f"{word}: {reason}") from error


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
        return Image.alpha_composite(Image.new("RGBA", overlaid.size, "white"), overlaid).convert("RGB")
    return image.convert("RGB")


def from_sixteen_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits: 65535 becomes 255."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise DecodeError("the image holds values beyond 16 bits: convert it to 8 or 16 bits first")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
