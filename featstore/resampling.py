"""Maps of one grid read off at the patch centres of another, bilinearly."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compute import FINE

__all__ = ["Resampler", "centres_of"]

Centres = tuple[NDArray[np.float64], NDArray[np.float64]]


def centres_of(variant: str, grid: tuple[int, int], backbone: Mapping[str, Any]) -> Centres:
    """Return where the places of a map of ``grid`` (H, W) lie, rows and columns as shares of the image in (0, 1).

    ``backbone`` is that part of the recipe: where patches overlap, ``input`` and ``stride`` [pixels] say where their centres
    are; where images keep their shapes, that one of ``inputs`` that has this grid. Without them, and for ``clean_fine``, the
    places are the centres of equal cells.
    """
    sides, stride = backbone.get("input"), backbone.get("stride")
    for height, width in backbone.get("inputs", ()):
        stride = int(backbone["stride"])
        if height - (grid[0] - 1) * stride == width - (grid[1] - 1) * stride > 0:
            sides = height, width
    if variant == FINE or not sides or not stride:
        sides, stride = grid, 1
    rows, columns = (
        (np.arange(count) * stride + (side - (count - 1) * stride) / 2) / side
        for count, side in zip(grid, sides, strict=True)
    )
    return rows, columns


class Resampler:
    """Reads maps whose places are ``source`` off at the places ``target``, both equally spaced; constant beyond the edge.

    ``needed`` is False where both are the same places: then maps come back as they are.
    """

    def __init__(self, source: Centres, target: Centres) -> None:
        self.needed = any(len(a) != len(b) or not np.allclose(a, b) for a, b in zip(source, target, strict=True))
        self.weights = tuple(weights(a, b) for a, b in zip(source, target, strict=True))

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a map (H, W, C) as (H', W', C)."""
        if not self.needed:
            return values
        rows, columns = self.weights
        across = np.einsum("ph,hwc->pwc", rows, values, optimize=True)
        resampled: NDArray[np.float64] = np.einsum("qw,pwc->pqc", columns, across, optimize=True)
        return resampled


def weights(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix (targets, sources) of linear interpolation along one side."""
    matrix = np.zeros((len(target), len(source)))
    if len(source) == 1:
        matrix[:] = 1
        return matrix
    place = np.clip((target - source[0]) / (source[1] - source[0]), 0, len(source) - 1)
    lower = np.minimum(place.astype(int), len(source) - 2)
    every = np.arange(len(target))
    matrix[every, lower] = 1 - (place - lower)
    matrix[every, lower + 1] = place - lower
    return matrix
