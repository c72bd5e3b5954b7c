"""Which part of an image a recipe's features show, and at which input size: what masks, depth maps and boxes must follow."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Box", "Geometry", "nearest"]

Size = tuple[int, int]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Geometry:
    """``resize`` of a recipe: ``squash``, ``shortest`` or ``keep``; sizes are (height, width) [pixels].

    ``input`` is that of the model, ``inputs`` those among which ``keep`` takes the one nearest to an image's shape.
    """

    input: Size
    resize: str = "squash"
    inputs: tuple[Size, ...] = ()

    @classmethod
    def of(cls, recipe: Mapping[str, Any]) -> "Geometry | None":
        """Return that of a version's recipe, None where it names no input size."""
        backbone = recipe.get("backbone", {})
        if "input" not in backbone:
            return None
        height, width = backbone["input"]
        inputs = tuple((int(rows), int(columns)) for rows, columns in backbone.get("inputs", ()))
        return cls((int(height), int(width)), str(backbone.get("resize", "squash")), inputs)

    @property
    def whole(self) -> bool:
        """Whether features show the whole of every image."""
        return self.resize != "shortest"

    def nominal(self, grid: Size, stride: int) -> Size:
        """Return the grid [patches] of an image in the shape of ``input``, from that of any image; ``stride`` in pixels."""
        if self.resize != "keep":
            return grid
        rows, columns = ((count - 1) * stride for count in grid)
        for height, width in self.inputs:
            if height - rows == width - columns > 0:
                patch = height - rows
                return (self.input[0] - patch) // stride + 1, (self.input[1] - patch) // stride + 1
        return grid

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return (top, left, height, width) of the part of an image that its features show [pixels]."""
        if self.whole:
            return 0, 0, height, width
        rows, columns = self.input
        if width * rows > height * columns:
            cut = max(1, (2 * height * columns + rows) // (2 * rows))
            return 0, (width - cut) // 2, height, cut
        cut = max(1, (2 * width * rows + columns) // (2 * columns))
        return (height - cut) // 2, 0, cut, width

    def target(self, height: int, width: int) -> Size:
        """Return the size to which that part was resized."""
        if self.resize != "keep":
            return self.input
        own = math.log(width / height)
        return min(self.inputs, key=lambda size: abs(math.log(size[1] / size[0]) - own))

    def pixels(self, box: Box, grid: Size, height: int, width: int, stride: int | None = None) -> tuple[float, ...]:
        """Return left, top, right, bottom [pixels of the image] of a ``box`` (top, left, bottom, right) of patches.

        ``stride`` is that of the patches [pixels of the input], which overlap where it is less than their size: edges then
        lie midway between their centres, those of the first and last at the border. None spreads the grid evenly.
        """
        top, left, rows, columns = self.box(height, width)
        target = self.target(height, width)
        shares = [edge(at, grid[n % 2], target[n % 2], stride) / target[n % 2] for n, at in enumerate(box)]
        return left + shares[1] * columns, top + shares[0] * rows, left + shares[3] * columns, top + shares[2] * rows

    def cut(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the part of a raster (h, w, …) that features show."""
        top, left, height, width = self.box(*values.shape[:2])
        return values[top : top + height, left : left + width]

    def nearest(self, values: NDArray[Any], target: Size) -> NDArray[Any]:
        """Return a raster (h, w) of labels or depths at a target size: the nearest value a pixel, nothing mixed."""
        return nearest(self.cut(values), target)


def edge(at: int, count: int, size: int, stride: int | None) -> float:
    """Return where patch ``at`` of ``count`` begins in an input of ``size`` [pixels]."""
    if stride is None or at in (0, count):
        return at * size / count
    return (size - (count - 1) * stride) / 2 + (at - 0.5) * stride


def nearest(values: NDArray[Any], target: Size) -> NDArray[Any]:
    """Return a raster (h, w) at a target size, the nearest value a pixel."""
    rows, columns = (
        ((np.arange(size) + 0.5) * own / size).astype(np.int64) for size, own in zip(target, values.shape, strict=True)
    )
    found: NDArray[Any] = values[rows[:, None], columns]
    return found
