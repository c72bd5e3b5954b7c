"""Read single samples out of sealed shards as fast as a memory map: HDF5 is asked once where they lie."""

import math
import mmap
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from .compute import VARIANTS
from .errors import CorruptError, NotInStoreError
from .layout import PREFIX_SUM
from .places import as_remote
from .quantise import DERIVABLE, STORED, checksum, residual_of
from .ranges import Ranges, fetch_all
from .readahead import ReadAhead
from .shard import PREFIX, opened

__all__ = ["PREFIX", "ShardPool", "ShardReader", "Window"]

Window = tuple[slice, slice]
"""Rows and columns of a grid."""


class ShardReader:
    """Reads samples of one sealed shard.

    The HDF5 library is used once, for shapes and the place of every chunk, and closed again; after that samples are copied
    out of a memory map. Chunks with a filter are read through HDF5. Holds no HDF5 handle, so it may be pickled, forked and
    used by several threads.
    """

    def __init__(self, path: Path, verify: bool = False) -> None:
        """Open ``path``; ``verify`` holds all that is read against the shard's own checksums.

        Raises CorruptError where it is no whole shard.
        """
        self.path = path
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.offsets: dict[str, NDArray[np.int64] | None] = {}
        self.sums: dict[str, NDArray[np.uint64]] = {}
        with opened(path) as file:
            for name in (*VARIANTS, PREFIX):
                if name in file:
                    self.shapes[name] = file[name].shape
                    self.offsets[name] = chunk_offsets(file[name])
            if verify:
                stored = [name for name in VARIANTS if name in file]
                self.sums = dict(zip(stored, file["checksum"][:].T, strict=True))
                if PREFIX_SUM in file:
                    self.sums[PREFIX] = file[PREFIX_SUM][:]
        self.sizes = {name: int(np.prod(shape[1:])) for name, shape in self.shapes.items()}
        places = {name: offsets for name, offsets in self.offsets.items() if offsets is not None}
        self.end = max((int(o.max(initial=0)) + STORED.itemsize * self.sizes[n] for n, o in places.items()), default=0)
        self.map: mmap.mmap | None = None
        self.ahead: ReadAhead | None = None
        remote = as_remote(path)
        self.remote = None if remote is None else Ranges(remote)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"map": None, "ahead": None}

    def __len__(self) -> int:
        return next(iter(self.shapes.values()))[0]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one sample; raises NotInStoreError for what is neither stored nor derivable."""
        shape = self.shapes.get(name)
        if shape is None:
            self.check_derivable(name)
            shape = self.shapes[DERIVABLE[0]]
        return shape[1:]

    def read(
        self, name: str, row: int, expected: int | None = None, window: Window | None = None
    ) -> NDArray[np.float16]:
        """Return one sample of a variant (H, W, C), ``clean_fine`` (H', W', C) or ``prefix_tokens`` (T, C), its own memory.

        A residual that is not stored is worked out as raw − clean − artifact. ``expected`` is a checksum to hold it against,
        in place of the shard's own. ``window`` takes those rows and columns alone. Raises NotInStoreError for a variant or
        row that is not there, CorruptError where the checksum differs.
        """
        stored = self.look(name, row, expected, window)
        return stored if stored.flags.owndata else stored.copy()

    def read_into(
        self,
        out: NDArray[np.float16],
        name: str,
        row: int,
        expected: int | None = None,
        window: Window | None = None,
    ) -> None:
        """As ``read``, into memory of the caller's."""
        np.copyto(out, self.look(name, row, expected, window))

    def look(self, name: str, row: int, expected: int | None, window: Window | None) -> NDArray[np.float16]:
        """Return a sample where it lies in the map, or as memory of its own where it had to be made."""
        shape = self.shapes.get(name)
        if shape is None:
            return self.derive(name, row, window)
        if not 0 <= row < shape[0]:
            raise NotInStoreError(f"{self.path.name} has rows 0 to {shape[0] - 1}, not {row}")
        offsets = self.offsets[name]
        sample: NDArray[np.float16]
        if offsets is None:
            with opened(self.path) as file:
                sample = np.ascontiguousarray(file[name][row], STORED)
        else:
            sample = self.stored(shape[1:], offsets.item(row))
        if expected is None and name in self.sums:
            expected = int(self.sums[name][row])
        if expected is not None:
            sample = sample if sample.flags.owndata else sample.copy()  # what was looked at is what is handed out
            if checksum(sample) != expected:
                raise CorruptError(
                    f"{self.path}: {name} of row {row} is not what was written: build again without the file"
                )
        return sample if window is None else sample[window]

    def stored(self, shape: tuple[int, ...], offset: int) -> NDArray[np.float16]:
        """Return what lies at ``offset`` of the file, in the map or as bytes that came from a server."""
        if self.remote is None:
            return np.ndarray(shape, STORED, self.map or self.open_map(), offset)
        return np.ndarray(shape, STORED, self.remote.read(offset, math.prod(shape) * STORED.itemsize))

    def places(self, names: Iterable[str], row: int) -> Iterator[tuple[Ranges, int, int]]:
        """Yield (file, offset, bytes) of what has to come from a server to read these variants of a sample."""
        for name in names if self.remote is not None else ():
            for part in (name,) if name in self.shapes else DERIVABLE:
                offsets = self.offsets.get(part)
                if self.remote is not None and offsets is not None and 0 <= row < len(offsets):
                    yield self.remote, offsets.item(row), self.sizes[part] * STORED.itemsize

    def prefetch(self, name: str, row: int, window: Window | None = None) -> None:
        """Have the disk bring in a sample that will be read soon; returns at once."""
        if name not in self.shapes:
            self.check_derivable(name)
            for part in DERIVABLE:
                self.prefetch(part, row, window)
            return
        offsets, rows = self.offsets[name], self.shapes[name][1]
        if self.remote is not None or offsets is None or not 0 <= row < len(offsets):
            return
        line = STORED.itemsize * self.sizes[name] // max(1, rows)
        first, end, _ = window[0].indices(rows) if window else (0, rows, 1)
        if self.ahead is None:
            self.open_map()
        if self.ahead is not None:
            self.ahead.request(offsets.item(row) + first * line, (end - first) * line)

    def check_derivable(self, name: str) -> None:
        """Raise NotInStoreError where the shard neither stores ``name`` nor has what it follows from."""
        if name != "residual" or not self.shapes.keys() >= set(DERIVABLE):
            raise NotInStoreError(f"{self.path.name} holds {', '.join(self.shapes)}, not {name}")

    def derive(self, name: str, row: int, window: Window | None = None) -> NDArray[np.float16]:
        """Return a residual that the shard does not store."""
        self.check_derivable(name)
        return residual_of(*(self.look(part, row, None, window) for part in DERIVABLE))

    def open_map(self) -> mmap.mmap:
        """Map the whole file read-only, and keep the map."""
        try:
            with self.path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise CorruptError(f"{self.path} cannot be read: {error}") from error
        if len(mapped) < self.end:  # to touch a page beyond the end would kill the process
            raise CorruptError(f"{self.path} was cut short since it was opened: build again without the file")
        self.ahead, self.map = ReadAhead(mapped), mapped
        return mapped


def chunk_offsets(data: h5py.Dataset) -> NDArray[np.int64] | None:
    """Return where each sample starts in the file [bytes]; None where chunks are filtered or hold more than one."""
    shape = data.shape
    if data.chunks != (1, *shape[1:]) or data.id.get_create_plist().get_nfilters() or data.dtype != STORED:
        return None
    offsets = np.full(shape[0], -1, np.int64)

    def note(chunk: Any) -> None:
        if chunk.chunk_offset[0] < shape[0]:
            offsets[chunk.chunk_offset[0]] = chunk.byte_offset

    data.id.chunk_iter(note)
    return None if (offsets < 0).any() else offsets


class ShardPool:
    """Readers of many shards, the ``limit`` used last kept open."""

    def __init__(self, paths: Sequence[Path], limit: int = 512, verify: bool = False) -> None:
        self.paths, self.limit, self.verify = tuple(paths), limit, verify
        self.readers: OrderedDict[int, ShardReader] = OrderedDict()

    def __getitem__(self, number: int) -> ShardReader:
        """Return the reader of shard ``number``; raises CorruptError where it is no whole shard."""
        reader = self.readers.get(number)
        if reader is None:
            reader = self.readers[number] = ShardReader(self.paths[number], self.verify)
            if len(self.readers) > self.limit:
                self.readers.popitem(last=False)
        elif len(self.readers) == self.limit:
            with suppress(KeyError):  # another thread has just let it go
                self.readers.move_to_end(number)
        return reader

    def fetch(self, names: Sequence[str], places: Iterable[tuple[int, int]]) -> None:
        """Get variants of many samples (shard, row) at once where they lie on a server; local ones are read when asked for."""
        fetch_all(part for number, row in places for part in self[number].places(names, row))
