"""Bytes out of the middle of sealed files on servers: by ranged requests, and through the cache."""

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from .cache import open_cache
from .errors import CorruptError, RemoteError, StoreError
from .places import as_remote
from .remote import RemotePath
from .transport import call, native

__all__ = ["RangeFile", "Ranges", "fetch_all", "hdf5_source"]

BLOCK = 1 << 16
"""How many bytes are asked for at a time where HDF5 looks for its tables [bytes]."""


class ShortAnswerError(OSError):
    """A server sent fewer bytes than it was asked for."""


def check_length(path: RemotePath, data: bytes, length: int) -> bytes:
    """Return ``data`` where it is as long as was asked for; raises ShortAnswerError or StoreError."""
    if len(data) < length:
        raise ShortAnswerError(f"{len(data)} bytes came in place of {length}")
    if len(data) > length:
        raise StoreError(
            f"the server of {path.base} answers a request for a part with the whole file: "
            "a store needs one that knows ranges (Range headers)"
        )
    return data


def read_range(path: RemotePath, offset: int, length: int) -> bytes:
    """Return ``length`` bytes from ``offset`` on; raises CorruptError where the file ends before."""

    def ask(fs: Any) -> bytes:
        return check_length(path, fs.cat_file(native(path.url), start=offset, end=offset + length), length)

    try:
        return call(path.url, ask)
    except (EOFError, RemoteError) as error:
        if isinstance(error, EOFError) or isinstance(error.__cause__, ShortAnswerError):
            raise CorruptError(f"{path} is shorter than it was: build again without the file") from error
        raise


class Ranges:
    """Parts of one file that never changes again, such as a sealed shard; asked for once, then kept in the cache.

    Pickles and forks: it holds no connection.
    """

    def __init__(self, path: RemotePath) -> None:
        """Ask for size and tag; raises FileNotFoundError, PermissionError, RemoteError."""
        path = RemotePath(path.url)  # as it is now, whatever a listing said
        status = path.stat()
        self.path, self.size, self.tag = path, status.st_size, status.tag
        self.cache = open_cache()
        self.ready: dict[tuple[int, int], bytes] = {}

    def key(self, offset: int, length: int) -> str:
        """Return what a part is kept under: file, its tag, and where in it."""
        return f"{self.path}\n{self.tag}\n{self.size}\n{offset}\n{length}"

    def read(self, offset: int, length: int, kept: bool = True) -> bytes:
        """Return a part; raises CorruptError where the file is too short. ``kept`` False asks the server whatever is kept."""
        data = self.ready.pop((offset, length), None) or (self.kept(offset, length) if kept else None)
        if data is None:
            data = read_range(self.path, offset, length)
            self.cache.put(self.key(offset, length), data)
        return data

    def kept(self, offset: int, length: int) -> bytes | None:
        """Return a part that the cache has, None otherwise."""
        return self.cache.get(self.key(offset, length), length)


def fetch_all(parts: Iterable[tuple[Ranges, int, int]]) -> None:
    """Get parts (file, offset, length) that are not in the cache, many at a time, ready to be read.

    What fails here is asked for again, and told, by ``read``.
    """
    missing: list[tuple[Ranges, int, int]] = []
    for ranges, offset, length in dict.fromkeys(parts):
        data = ranges.kept(offset, length)
        if data is None:
            missing.append((ranges, offset, length))
        else:
            ranges.ready[offset, length] = data
    for _, group in groupby(missing, lambda part: part[0].path.base):
        wanted = list(group)
        names = [native(ranges.path.url) for ranges, _, _ in wanted]
        starts = [offset for _, offset, _ in wanted]
        ends = [offset + length for _, offset, length in wanted]
        for (ranges, offset, length), data in zip(
            wanted, cat_ranges(wanted[0][0].path, names, starts, ends), strict=True
        ):
            if isinstance(data, bytes) and len(data) == length:
                ranges.ready[offset, length] = data
                ranges.cache.put(ranges.key(offset, length), data)


def cat_ranges(path: RemotePath, names: list[str], starts: list[int], ends: list[int]) -> Sequence[Any]:
    """Ask for many parts at once; what fails is an exception in its place."""
    found: Sequence[Any] = call(path.url, lambda fs: fs.cat_ranges(names, starts, ends, on_error="return"))
    return found


class RangeFile(io.RawIOBase):
    """A remote file read in blocks, as HDF5 reads its tables; the cache keeps them unless ``keep`` is False.

    ``error`` is what stopped it.
    """

    def __init__(self, path: RemotePath, keep: bool = True) -> None:
        self.ranges, self.place, self.keep = Ranges(path), 0, keep
        self.error: Exception | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return where reading goes on."""
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to another place."""
        start = (0, self.place, self.ranges.size)[whence]
        self.place = start + offset
        return self.place

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` as far as the file goes."""
        view = memoryview(buffer).cast("B")
        end = min(self.place + len(view), self.ranges.size)
        try:
            data = self.between(self.place, end) if end > self.place else b""
        except Exception as error:
            self.error = error  # HDF5 makes an error of its own out of it
            raise
        view[: len(data)] = data
        self.place += len(data)
        return len(data)

    def between(self, start: int, end: int) -> bytes:
        """Return bytes ``start`` to ``end`` by whole blocks; those that are missing side by side come in one request."""
        first, last = start // BLOCK, -(-end // BLOCK)
        sizes = {number: min(BLOCK, self.ranges.size - number * BLOCK) for number in range(first, last)}
        blocks = {number: self.ranges.kept(number * BLOCK, size) for number, size in sizes.items()}
        gaps = [number for number, data in blocks.items() if data is None]
        for _, run in groupby(enumerate(gaps), lambda pair: pair[1] - pair[0]):
            numbers = [number for _, number in run]
            data = read_range(self.ranges.path, numbers[0] * BLOCK, sum(sizes[number] for number in numbers))
            for number in numbers:
                at = (number - numbers[0]) * BLOCK
                blocks[number] = data[at : at + sizes[number]]
                if self.keep:
                    self.ranges.cache.put(self.ranges.key(number * BLOCK, sizes[number]), data[at : at + sizes[number]])
        return b"".join(data or b"" for data in blocks.values())[start - first * BLOCK : end - first * BLOCK]


@contextmanager
def hdf5_source(path: Path) -> Iterator[Path | RangeFile]:
    """Yield what h5py opens: the path itself, or a remote file's ``RangeFile``, whose own errors are those raised."""
    remote = as_remote(path)
    if remote is None:
        yield path
        return
    file = RangeFile(remote)
    try:
        yield file
    except Exception:
        if file.error is not None:
            raise file.error from None
        raise
