"""Crops of the patch grid: the same part of an image for everything that shows it."""

import hashlib
import struct
from dataclasses import dataclass

from .errors import InputError

__all__ = ["Crop", "Part"]


@dataclass(frozen=True)
class Part:
    """Rows ``top`` to ``top + height`` and as many columns of a grid of size ``of``."""

    top: int
    left: int
    height: int
    width: int
    of: tuple[int, int]

    def on(self, size: tuple[int, ...]) -> tuple[slice, slice]:
        """Return the same part of a raster of another ``size`` (height, width, …), to the nearest row and column.

        Its size depends on the crop's size alone and not on the place, so that crops collate.
        """
        return span(self.top, self.height, self.of[0], size[0]), span(self.left, self.width, self.of[1], size[1])

    def shares(self) -> tuple[float, float, float, float]:
        """Return left, top, right, bottom as shares of the whole, in [0, 1]."""
        height, width = self.of
        return self.left / width, self.top / height, (self.left + self.width) / width, (self.top + self.height) / height


def span(start: int, length: int, old: int, new: int) -> slice:
    """Carry ``length`` of ``old`` cells from ``start`` over to ``new`` cells, rounding half up."""
    size = max(1, (2 * length * new + old) // (2 * old))
    first = min((2 * start * new + old) // (2 * old), new - size)
    return slice(first, first + size)


@dataclass(frozen=True)
class Crop:
    """Where to crop a ``grid`` to ``height`` × ``width`` [patches]: in the centre, or at random.

    Where grids differ, ``grid`` has the least rows and columns of any.

    A random place is decided by (seed, epoch, index) and nothing else: the same in whatever process and order the sample is
    read, another for every sample and epoch. Raises InputError for a crop that does not fit the grid.
    """

    height: int
    width: int
    grid: tuple[int, int]
    centre: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not (1 <= self.height <= self.grid[0] and 1 <= self.width <= self.grid[1]):
            height, width = self.grid
            raise InputError(f"a crop of {self.height}x{self.width} patches does not fit the grid of {height}x{width}")

    def part(self, epoch: int, index: int, grid: tuple[int, int] | None = None) -> Part:
        """Return the part of the grid, or of a ``grid`` of its own, that sample ``index`` shows in ``epoch``."""
        grid = grid or self.grid
        free = grid[0] - self.height + 1, grid[1] - self.width + 1
        if self.centre:
            top, left = (free[0] - 1) // 2, (free[1] - 1) // 2
        else:
            drawn = hashlib.blake2b(struct.pack("<qqq", self.seed, epoch, index), digest_size=16).digest()
            # The upper bits of 64 × n: a bias of n / 2^64, where a remainder would have the same and reads less plainly.
            top, left = (number * n >> 64 for number, n in zip(struct.unpack("<QQ", drawn), free, strict=True))
        return Part(top, left, self.height, self.width, grid)
