"""Label masks: indices as they are, never colours."""

import numpy as np
from numpy.typing import NDArray

from .errors import DecodeError
from .images import opened, probe

__all__ = ["probe_mask", "read_mask"]

probe_mask = probe


def read_mask(data: bytes) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return (h, w) label indices: a palette's or grey file's values as stored; 16-bit files as uint16.

    Raises DecodeError for a colour file, whose labels cannot be told from its colours.
    """
    with opened(data) as image:
        image.load()
        if image.mode in ("P", "L"):
            return np.array(image, dtype=np.uint8)
        if image.mode == "1":
            return np.array(image).astype(np.uint8)
        if image.mode.startswith("I"):
            values = np.asarray(image)
            if values.min() >= 0 and values.max() <= 65535:
                return values.astype(np.uint16)
        raise DecodeError(f"a mask holds one index a pixel (palette or grey), this file is {image.mode}")
