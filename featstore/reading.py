"""Read single samples out of sealed shards as fast as a memory map: HDF5 is asked once where they lie."""

import mmap
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .chunks import Chunks
from .compute import VARIANTS
from .errors import CorruptError, NotInStoreError
from .filters import need_plugins
from .int8 import affine_name, decode
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
    out of a memory map, or come from a server; filters are undone and int8 is made float16 again. Only filters that nothing
    here knows are left to HDF5. Holds no HDF5 handle, so it may be pickled, forked and used by several threads.
    """

    def __init__(self, path: Path, verify: bool = False) -> None:
        """Open ``path``; ``verify`` holds all that is read against the shard's own checksums.

        Raises CorruptError where it is no whole shard.
        """
        self.path = path
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.parts: dict[str, tuple[str, ...]] = {}  # the data sets that a variant is read from
        self.chunks: dict[str, Chunks] = {}
        self.sums: dict[str, NDArray[np.uint64]] = {}
        with opened(path) as file:
            for name in (*VARIANTS, PREFIX):
                if name in file:
                    self.shapes[name] = file[name].shape
                    affine = affine_name(name)
                    self.parts[name] = (name, affine) if affine in file else (name,)
                    self.chunks |= {part: Chunks.of(file[part]) for part in self.parts[name]}
            if verify:
                stored = [name for name in VARIANTS if name in file]
                self.sums = dict(zip(stored, file["checksum"][:].T, strict=True))
                if PREFIX_SUM in file:
                    self.sums[PREFIX] = file[PREFIX_SUM][:]
        self.end = max((chunks.end for chunks in self.chunks.values()), default=0)
        self.map: mmap.mmap | None = None
        self.ahead: ReadAhead | None = None
        remote = as_remote(path)
        self.remote = None if remote is None else Ranges(remote)
        # Where samples lie in the map just as they are handed out.
        alone = [
            name for name, parts in self.parts.items() if len(parts) == 1 and self.remote is None and not self.sums
        ]
        found = {name: (self.shapes[name][1:], self.chunks[name].plain) for name in alone}
        self.plain = {name: (shape, offsets) for name, (shape, offsets) in found.items() if offsets is not None}

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
        if name in self.plain and expected is None and window is None:
            return self.view(name, row).copy()
        stored = self.look(name, row, expected, window)
        return stored if stored.flags.writeable and stored.flags.c_contiguous else stored.copy()

    def read_into(
        self,
        out: NDArray[np.float16],
        name: str,
        row: int,
        expected: int | None = None,
        window: Window | None = None,
    ) -> None:
        """As ``read``, into memory of the caller's."""
        plain = name in self.plain and expected is None and window is None
        np.copyto(out, self.view(name, row) if plain else self.look(name, row, expected, window))

    def view(self, name: str, row: int) -> NDArray[np.float16]:
        """Return a sample where it lies in the map just as it is handed out: the shortest way, of most reads."""
        shape, offsets = self.plain[name]
        if not 0 <= row < len(offsets):
            raise NotInStoreError(f"{self.path.name} has rows 0 to {len(offsets) - 1}, not {row}")
        return np.ndarray(shape, STORED, self.map or self.open_map(), offsets.item(row))

    def look(self, name: str, row: int, expected: int | None, window: Window | None) -> NDArray[np.float16]:
        """Return a sample where it lies in the map, or as memory of its own where it had to be made."""
        shape = self.shapes.get(name)
        if shape is None:
            return self.derive(name, row, window)
        if not 0 <= row < shape[0]:
            raise NotInStoreError(f"{self.path.name} has rows 0 to {shape[0] - 1}, not {row}")
        stored = [self.stored(part, row) for part in self.parts[name]]
        if expected is None and name in self.sums:
            expected = int(self.sums[name][row])
        if expected is not None:
            # What was looked at is what is handed out.
            stored = [part if part.flags.writeable else part.copy() for part in stored]
            if checksum(*stored) != expected and self.remote is not None:  # it may be the cache that is damaged
                stored = [self.stored(part, row, kept=False).copy() for part in self.parts[name]]
            if checksum(*stored) != expected:
                raise CorruptError(
                    f"{self.path}: {name} of row {row} is not what was written: build again without the file"
                )
        if len(stored) == 2:
            return decode(stored[0], stored[1], window)
        return stored[0] if window is None else stored[0][window]

    def stored(self, part: str, row: int, kept: bool = True) -> NDArray[Any]:
        """Return a sample of one data set as it is stored, filters undone: a view of the map, or its own, writeable memory.

        ``kept`` False passes over what the cache has of a remote shard.
        """
        chunks = self.chunks[part]
        place = chunks.place(row)
        if place is None:
            need_plugins(chunks.filters, self.path)
            with opened(self.path) as file:
                return np.ascontiguousarray(file[part][row])
        try:
            if self.remote is not None:
                return chunks.sample(self.remote.read(*place, kept), 0, place[1])
            return chunks.sample(self.map or self.open_map(), *place)
        except ValueError as error:
            if self.remote is not None and kept and not isinstance(error, CorruptError):
                return self.stored(part, row, kept=False)
            raise CorruptError(f"{self.path}: {part} of row {row}: {error}; build again without the file") from error

    def places(self, names: Iterable[str], row: int) -> Iterator[tuple[Ranges, int, int]]:
        """Yield (file, offset, bytes) of what has to come from a server to read these variants of a sample."""
        for name in names if self.remote is not None else ():
            for variant in (name,) if name in self.shapes else DERIVABLE:
                for part in self.parts.get(variant, ()) if 0 <= row < len(self) else ():
                    place = self.chunks[part].place(row)
                    if self.remote is not None and place is not None:
                        yield self.remote, *place

    def prefetch(self, name: str, row: int, window: Window | None = None) -> bool:
        """Have the disk bring in a sample that will be read soon; returns at once: whether it is in memory already."""
        if name not in self.shapes:
            self.check_derivable(name)
            cached = [self.prefetch(part, row, window) for part in DERIVABLE]
            return all(cached)
        place = self.chunks[name].place(row) if 0 <= row < len(self) else None
        if self.remote is not None or place is None:
            return True
        (start, length), rows = place, self.shapes[name][1]
        if window and not self.chunks[name].filters:
            first, end, _ = window[0].indices(rows)
            start, length = start + first * length // max(1, rows), (end - first) * length // max(1, rows)
        if self.ahead is None:
            self.open_map()
        return self.ahead is None or self.ahead.request(start, length)

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
