"""How colours of a mask file stand for labels, a function a coding."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import DecodeError
from .panoptic import segments_of

__all__ = ["CODINGS", "INDEX"]

INDEX = "index"
"""A number a pixel, palette or grey: no colours to decode."""


def ade20k(colours: NDArray[np.uint8], path: Path | None = None) -> NDArray[np.uint16]:
    """Return the class numbers (h, w) of ADE20K's full release: red // 10 · 256 + green; blue counts instances.

    The formula is that of the release's own ``utils_ade20k.py``.
    """
    return (colours[..., 0] // 10).astype(np.uint16) * 256 + colours[..., 1]


def panoptic(colours: NDArray[np.uint8], path: Path | None = None) -> NDArray[np.uint16]:
    """Return the categories (h, w) of a COCO panoptic picture, which the JSON beside its folder tells."""
    if path is None:
        raise DecodeError("a panoptic picture has no labels without its place: the JSON beside it names them")
    return segments_of(path.parent).labels(colours, path.stem)


CODINGS: dict[str, Callable[[NDArray[np.uint8], Path | None], NDArray[np.uint16]]] = {
    "ade20k": ade20k,
    "panoptic": panoptic,
}
"""Each takes colours (h, w, 3) and the file's place, for codings whose key lies beside the file."""
