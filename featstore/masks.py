"""Label masks and depth maps: values as they are, never colours."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .codings import CODINGS, INDEX
from .errors import DecodeError
from .images import ImageInfo, opened, probe, upright

__all__ = ["probe_mask", "read_depth", "read_mask"]

EIGHT_BIT = ("P", "L", "1")
NPY = b"\x93NUMPY"


def probe_mask(data: bytes, coding: str = INDEX) -> ImageInfo:
    """Read a mask's header, not its pixels; raises DecodeError for what ``read_mask`` cannot take by its mode."""
    info = probe(data)
    require_labels(info.mode, coding)
    return info


def read_mask(data: bytes, coding: str = INDEX, path: Path | None = None) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return (h, w) label indices: a palette's or grey file's values as stored; 16-bit files as uint16.

    ``coding`` says how a colour file holds them, as `datasets.mask_coding` does; ``path`` is the file's place, which
    ``panoptic`` needs. EXIF orientation is applied, so that a mask
    lies on its image as ``decode`` returns it. Raises DecodeError for a colour file where no coding says what its colours
    mean, and for what ``decode`` refuses.
    """
    with opened(data) as image:
        require_labels(image.mode, coding)
        labels = upright(image)
        if coding != INDEX:
            return CODINGS[coding](np.array(labels, dtype=np.uint8), path)
        return np.array(labels, dtype=np.uint8) if labels.mode in EIGHT_BIT else sixteen_bit(labels)


def read_depth(data: bytes) -> NDArray[np.float32]:
    """Return (h, w) depths as stored, in the file's own unit, from a grey file of 8, 16 or 32 bits or of floats, or a .npy.

    Raises DecodeError for a colour file, and for what ``decode`` refuses.
    """
    if data.startswith(NPY):
        return depth_array(data)
    with opened(data) as image:
        if image.mode not in ("L", "F") and not image.mode.startswith("I"):
            raise DecodeError(f"a depth map holds one number a pixel (grey), this file is {image.mode}")
        return np.array(upright(image), dtype=np.float32)


def depth_array(data: bytes) -> NDArray[np.float32]:
    """Return the depths in the bytes of a .npy file: (h, w), or with a channel of its own before or behind."""
    try:
        values = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DecodeError(f"the .npy file is damaged, fetch it again: {' '.join(str(error).split())}") from error
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise DecodeError(f"a depth map holds one number a pixel, this array is {values.dtype} of shape {values.shape}")
    depths: NDArray[np.float32] = values.astype(np.float32)
    return depths


def require_labels(mode: str, coding: str) -> None:
    """Raise DecodeError where a file of this Pillow mode does not hold labels of this coding."""
    if coding != INDEX:
        if coding not in CODINGS:
            raise DecodeError(f"masks are coded as {coding!r}, which this featstore does not know: install a newer one")
        if mode != "RGB":
            raise DecodeError(f"a mask coded as {coding} holds colours (RGB), this file is {mode}: fetch it again")
    elif mode not in EIGHT_BIT and not mode.startswith("I"):
        raise DecodeError(f"a mask holds one index a pixel (palette or grey), this file is {mode}: save it as such")


def sixteen_bit(image: Image.Image) -> NDArray[np.uint16]:
    """Return the values of an integer image that fit into 16 bits."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise DecodeError(f"a mask's indices go from 0 to 65535, this file's from {values.min()} to {values.max()}")
    return values.astype(np.uint16)
