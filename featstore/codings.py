"""How colours of a mask file stand for labels, a function a coding."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["CODINGS", "INDEX"]

INDEX = "index"
"""A number a pixel, palette or grey: no colours to decode."""


def ade20k(colours: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return the class numbers (h, w) of ADE20K's full release: red // 10 · 256 + green; blue counts instances.

    The formula is that of the release's own ``utils_ade20k.py``.
    """
    return (colours[..., 0] // 10).astype(np.uint16) * 256 + colours[..., 1]


CODINGS: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.uint16]]] = {"ade20k": ade20k}
