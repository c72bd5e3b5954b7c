"""Files inside a tar, by an index of where each begins: one header pass a tar and process, then one read a file."""

import json
import os
import tarfile
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from .cache import open_cache
from .errors import CorruptError, DecodeError, RemoteError
from .places import as_remote
from .ranges import RangeFile, read_range
from .remote import RemotePath

__all__ = ["TarIndex", "check_readable", "normal", "read_tar", "tar_index"]

OPEN = 64
"""How many tars keep their index and, on a local disk, their file open."""

AHEAD = 1 << 23
"""How many bytes of a remote tar come at a time while its headers are looked for [bytes]."""

BLOCK, LENGTH = 512, 12
COMPRESSED = {b"\x1f\x8b": "gzip -d", b"BZh": "bzip2 -d", b"\xfd7zXZ": "xz -d", b"\x28\xb5\x2f\xfd": "zstd -d"}


@dataclass
class TarIndex:
    """Where each file of a tar lies, (offset, length) [bytes] by name, and in a line what is wrong with the tar.

    ``changed`` is when the tar was changed [ns since 1970].
    """

    members: dict[str, tuple[int, int]]
    damage: str | None = None
    changed: int = 0
    file: IO[bytes] | None = field(default=None, repr=False)


class Kept:
    """The indices used last, by place and time of change. One thread looks a tar through, the others wait for it."""

    def __init__(self) -> None:
        self.found: OrderedDict[str, tuple[Any, TarIndex]] = OrderedDict()
        self.lock = threading.Lock()
        self.busy: dict[str, threading.Lock] = {}

    def get(self, path: Path) -> TarIndex:
        """Return the index of a tar as it is now."""
        name, stamp = str(path), stamp_of(path)
        if (index := self.known(name, stamp)) is not None:
            return index
        with self.lock:
            alone = self.busy.setdefault(name, threading.Lock())
        with alone:
            if (index := self.known(name, stamp)) is not None:
                return index
            if stamp is None:
                stamp = path.stat()[:3]
            index = make_index(path)
            index.changed = stamp[1]
            with self.lock:
                self.found[name] = stamp, index
                self.busy.pop(name, None)
                while len(self.found) > OPEN:
                    self.found.popitem(last=False)  # its file is closed when the last thread has let go of it
        return index

    def known(self, name: str, stamp: Any) -> TarIndex | None:
        """Return what is kept of a tar, None where that is of other bytes."""
        with self.lock:
            held = self.found.get(name)
            if held is None or (stamp is not None and held[0] != stamp):
                return None
            self.found.move_to_end(name)
            return held[1]


KEPT = [Kept()]
os.register_at_fork(
    after_in_child=lambda: KEPT.__setitem__(0, Kept())
)  # a lock may be held by a thread that is not here


def tar_index(path: Path) -> TarIndex:
    """Return where the files of a tar lie. Raises OSError where it is not there, DecodeError where it is no tar at all."""
    return KEPT[0].get(path)


def read_tar(path: Path, member: str) -> bytes:
    """Return one file of a tar: one read at one place. Raises OSError, and DecodeError in a line that names neither."""
    index = tar_index(path)
    place = index.members.get(normal(member))
    if place is None:
        raise DecodeError(index.damage or f"{path.name} holds no file of this name: index the data set again")
    offset, length = place
    remote = as_remote(path)
    if remote is None:
        data = os.pread(cast(IO[bytes], index.file).fileno(), length, offset) if length else b""
        while 0 < len(data) < length:  # one call returns 2 GB at most
            more = os.pread(cast(IO[bytes], index.file).fileno(), length - len(data), offset + len(data))
            data += more
            if not more:
                break
    else:
        try:
            data = read_range(remote, offset, length) if length else b""
        except CorruptError:
            data = b""
    if len(data) != length:
        raise DecodeError(f"{path.name} ends in the middle of this file: fetch it again")
    return data


def normal(member: str) -> str:
    """Return a name in a tar without what says nothing: ``./``, a slash at the front or two side by side."""
    return "/".join(part for part in member.split("/") if part not in ("", "."))


def stamp_of(path: Path) -> Any:
    """Return what changes with a tar: size, time, which file. None where a server would have to be asked for each file."""
    remote = as_remote(path)
    if remote is None:
        status = os.stat(path)  # noqa: PTH116
        return status.st_size, status.st_mtime_ns, status.st_ino
    return remote.stat()[:3] if remote.listing is not None else None


def make_index(path: Path) -> TarIndex:
    """Look all headers of a tar through; what a server's tar holds is kept in the cache."""
    remote = as_remote(path)
    if remote is not None:
        return remote_index(remote)
    file = path.open("rb", buffering=0)
    with path.open("rb") as headers:
        index = scan(headers, path.name)
    index.file = file
    return index


def remote_index(path: RemotePath) -> TarIndex:
    """Return the index of a tar on a server: kept, or of one pass over it."""
    plain = RemotePath(path.url)
    status, cache = plain.stat(), open_cache()
    key = f"{plain}\n{status.tag}\n{status.st_size}\ntar index"
    size = cache.get(f"{key} size", LENGTH)
    kept = cache.get(key, int(size)) if size is not None else None
    if kept is not None:
        told = json.loads(zlib.decompress(kept))
        return TarIndex({name: (start, length) for name, start, length in told})
    with opened(plain) as file:
        index = scan(file, path.name)
    if index.damage is None:
        packed = zlib.compress(json.dumps([(name, *place) for name, place in index.members.items()]).encode())
        cache.put(key, packed)
        cache.put(f"{key} size", b"%0*d" % (LENGTH, len(packed)))
    return index


@contextmanager
def opened(path: RemotePath) -> Iterator[IO[bytes]]:
    """Open a remote file to be read from front to back; its own errors are those raised."""
    import io

    raw = RangeFile(path, keep=False)
    try:
        yield io.BufferedReader(raw, AHEAD)
    except Exception:
        if raw.error is not None:
            raise raw.error from None
        raise


def check_readable(head: bytes, name: str) -> None:
    """Raise DecodeError where a file that begins so is compressed, or no tar."""
    for mark, command in COMPRESSED.items():
        if head.startswith(mark):
            raise DecodeError(
                f"{name} is compressed, and files in it cannot be read in place: decompress it ({command})"
            )


def scan(file: IO[bytes], name: str) -> TarIndex:
    """Return where the files lie in a tar; of two of one name the last, as tar itself extracts them."""
    check_readable(file.read(8), name)
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    members: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else a million of them are kept
                member = normal(info.name)
                if info.isreg() and not info.issparse():
                    if info.offset_data + info.size > end:
                        return TarIndex(members, f"{name} ends in the middle of {member}: fetch it again")
                    members[member] = info.offset_data, info.size
                elif info.islnk() and normal(info.linkname) in members:
                    members[member] = members[normal(info.linkname)]
            after = tar.offset
    except RemoteError:
        raise
    except tarfile.TarError as error:
        if not members:
            raise DecodeError(f"{name} is not a tar file, or cut off in its first header: fetch it again") from error
        return TarIndex(members, f"{name} is cut off or damaged after {len(members)} files ({error}): fetch it again")
    file.seek(after)
    rest = file.read(BLOCK)
    if rest.strip(b"\0"):
        return TarIndex(members, f"{name} is damaged after {len(members)} files, at byte {after:,}: fetch it again")
    if not rest:
        return TarIndex(members, f"{name} lacks the zeros that end a tar: it may have been cut off between two files")
    return TarIndex(members)
