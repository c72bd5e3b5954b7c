"""How a shard is laid out: which float16 data sets it has, and the shape of a sample of each."""

from collections.abc import Iterable
from dataclasses import dataclass

from .compute import FINE
from .errors import InputError

__all__ = ["FORMAT_VERSION", "PREFIX", "PREFIX_SUM", "ShardHeader", "sample_shapes"]

FORMAT_VERSION = 2
"""2 adds a trailer behind the HDF5 bytes and checksums of the prefix tokens; 1 is still read."""

PREFIX, PREFIX_SUM = "prefix_tokens", "checksum_prefix"


def sample_shapes(
    variants: Iterable[str],
    grid: tuple[int, int],
    fine_grid: tuple[int, int] | None,
    channels: int,
    prefix_tokens: int,
) -> dict[str, tuple[int, ...]]:
    """Return the shape of one sample of each float16 data set: variants (H, W, C), prefix tokens (T, C).

    ``grid`` is (H, W) [patches] of every variant but ``clean_fine``, whose own is ``fine_grid`` (H', W') [points].
    Raises InputError where ``clean_fine`` is among the variants and has no grid.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for name in variants:
        if name == FINE and fine_grid is None:
            raise InputError(f"{FINE} has a grid of its own, and none is given")
        height, width = fine_grid if name == FINE and fine_grid else grid
        shapes[name] = (height, width, channels)
    return shapes | ({PREFIX: (prefix_tokens, channels)} if prefix_tokens else {})


@dataclass(frozen=True)
class ShardHeader:
    """What a shard says of itself. ``recipe`` and ``provenance`` are JSON texts; ``grid`` is (H, W) [patches].

    ``fine_grid`` is (H', W') [points] of ``clean_fine``, None in a shard that does not hold it.
    """

    dataset: str
    backbone: str
    digest: str
    recipe: str
    variants: tuple[str, ...]
    grid: tuple[int, int]
    channels: int
    prefix_tokens: int
    provenance: str
    fine_grid: tuple[int, int] | None = None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of one sample of each float16 data set; raises InputError where one is not known."""
        return sample_shapes(self.variants, self.grid, self.fine_grid, self.channels, self.prefix_tokens)
