"""How a shard is laid out: which data sets of features it has, and type and shape of a sample of each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from .compute import FINE
from .errors import InputError
from .filters import NONE
from .int8 import affine_length, affine_name

__all__ = [
    "FLOAT16",
    "FORMAT_VERSION",
    "INT8",
    "PREFIX",
    "PREFIX_SUM",
    "STORES",
    "Part",
    "ShardHeader",
    "sample_parts",
    "sample_shapes",
]

FORMAT_VERSION = 2
"""2 adds a trailer behind the HDF5 bytes and checksums of the prefix tokens; 1 is still read."""

PREFIX, PREFIX_SUM = "prefix_tokens", "checksum_prefix"
STORES = FLOAT16, INT8 = ("float16", "int8")
"""What features may be stored as; prefix tokens are float16 always."""


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


class Part(NamedTuple):
    """One data set of features, or of what int8 needs beside it: numpy's name of its type, shape of a sample, filter or not."""

    dtype: str
    shape: tuple[int, ...]
    filtered: bool


@dataclass(frozen=True)
class ShardHeader:
    """What a shard says of itself. ``recipe`` and ``provenance`` are JSON texts; ``grid`` is (H, W) [patches].

    ``fine_grid`` is (H', W') [points] of ``clean_fine``, None in a shard that does not hold it. ``store`` is what variants are
    stored as, and part of the recipe; ``codec`` the filter of their chunks, which moves no number.
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
    store: str = FLOAT16
    codec: str = NONE

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of one sample of each float16 data set; raises InputError where one is not known."""
        return sample_shapes(self.variants, self.grid, self.fine_grid, self.channels, self.prefix_tokens)

    def parts(self) -> dict[str, Part]:
        """Return every data set of one sample a chunk, in the order in which they are made."""
        return sample_parts(self.shapes(), self.store, self.codec)

    @property
    def codecs(self) -> str:
        """Return in one word how the features are stored: ``none``, a filter's name, ``int8``, or ``int8+zstd``."""
        return self.codec if self.store == FLOAT16 else self.store + (f"+{self.codec}" if self.codec != NONE else "")


def sample_parts(shapes: Mapping[str, tuple[int, ...]], store: str, codec: str) -> dict[str, Part]:
    """Return the data sets in which samples of these shapes are stored."""
    parts: dict[str, Part] = {}
    for name, shape in shapes.items():
        coded = store == INT8 and name != PREFIX
        parts[name] = Part("i1" if coded else "<f2", shape, codec != NONE and name != PREFIX)
        if coded:
            parts[affine_name(name)] = Part("<f4", (affine_length(shape),), False)
    return parts
