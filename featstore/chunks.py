"""Where the samples of a shard's data set lie in the file, and how the bytes there become values again."""

from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from .filters import decodable, decode, filters_of
from .quantise import STORED

__all__ = ["Chunks"]


@dataclass(frozen=True)
class Chunks:
    """One data set: ``shape`` (N, …) of all its samples, where each starts and how long it is (N,) [bytes], and its filters.

    ``offsets`` is None where only HDF5 can tell: chunks of more than one sample, or filters that nothing here undoes.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    filters: tuple[int, ...]
    offsets: NDArray[np.int64] | None
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, data: h5py.Dataset) -> "Chunks":
        """Look up the chunks of a data set; HDF5 is not needed for them any more."""
        shape, filters = tuple(data.shape), filters_of(data)
        offsets, lengths = np.full(shape[0], -1, np.int64), np.zeros(shape[0], np.int64)
        whole = data.chunks == (1, *shape[1:]) and decodable(filters)

        def note(chunk: Any) -> None:
            if chunk.chunk_offset[0] < shape[0] and not chunk.filter_mask:  # a set bit: one of the filters was left out
                offsets[chunk.chunk_offset[0]], lengths[chunk.chunk_offset[0]] = chunk.byte_offset, chunk.size

        if whole:
            data.id.chunk_iter(note)
        return cls(shape, data.dtype, filters, offsets if whole and (offsets >= 0).all() else None, lengths)

    def place(self, row: int) -> tuple[int, int] | None:
        """Return (start, length) of a sample's chunk in the file [bytes], None where HDF5 has to be asked."""
        return None if self.offsets is None else (self.offsets.item(row), self.lengths.item(row))

    @property
    def plain(self) -> NDArray[np.int64] | None:
        """Return the offsets where samples lie there as float16 without filter, None otherwise."""
        return self.offsets if not self.filters and self.dtype == STORED else None

    @property
    def end(self) -> int:
        """Return where the last of them ends in the file [bytes]."""
        return 0 if self.offsets is None else int((self.offsets + self.lengths).max(initial=0))

    @property
    def count(self) -> int:
        """Return how many values a sample has."""
        return int(np.prod(self.shape[1:]))

    def sample(self, data: Any, start: int, length: int) -> NDArray[Any]:
        """Return the sample whose chunk lies at ``start`` of some bytes: a view of them, or its own, writeable memory.

        It is its own where filters were undone. Raises ValueError where the chunk is damaged.
        """
        if not self.filters:
            return np.ndarray(self.shape[1:], self.dtype, data, start)
        chunk = memoryview(data)[start : start + length]
        return decode(self.filters, chunk, self.dtype, self.count).reshape(self.shape[1:])
