"""The local cache of what lies on servers: one folder, bounded, safe with many processes, least recently used goes first."""

import fcntl
import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

from .errors import InputError, StoreError

__all__ = ["Cache", "cache_folder", "open_cache"]

FOLDER, SIZE = "FEATSTORE_CACHE", "FEATSTORE_CACHE_SIZE"
DEFAULT_SIZE = 10 * 10**9
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
KEPT = 0.9
"""What share of the bound is left when room is made."""


def cache_folder(name: str) -> Path:
    """Return a folder of the cache, made where it is missing and shut to other users.

    $FEATSTORE_CACHE, else $XDG_CACHE_HOME/featstore, else ~/.cache/featstore. Raises StoreError where it cannot be made.
    """
    chosen = os.environ.get(FOLDER)
    home = os.environ.get("XDG_CACHE_HOME")
    top = Path(chosen).expanduser() if chosen else (Path(home) if home else Path.home() / ".cache") / "featstore"
    folder = top.absolute() / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the cache {folder}: {error.strerror}; choose another with {FOLDER}") from error
    return folder


def cache_size() -> int:
    """Return $FEATSTORE_CACHE_SIZE [bytes], 10 GB without it; raises InputError where it is no size."""
    text = os.environ.get(SIZE, "").strip()
    if not text:
        return DEFAULT_SIZE
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?", text.lower())
    if match is None or match[2] not in UNITS:
        raise InputError(f"{SIZE}={text} is no size: give 20GB, 512MB or 0 for none")
    return int(float(match[1]) * UNITS[match[2]])


def open_cache() -> "Cache":
    """Return the cache that the environment means."""
    return Cache(cache_folder("blocks"), cache_size())


class Cache:
    """Bytes by key, ``limit`` bytes of them at most, in the folder of which many processes may have one.

    An entry is a file that is whole or not there; its time of change is that of its last use. What all entries take together
    stands in a file that is changed under a lock, so that the bound holds whoever writes. A cache that cannot be written is
    one that forgets: no error comes of it.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit

    def path(self, key: str) -> Path:
        """Return where an entry lies."""
        name = blake2b(key.encode(), digest_size=16).hexdigest()
        return self.folder / name[:2] / name[2:]

    def get(self, key: str, length: int) -> bytes | None:
        """Return an entry of ``length`` bytes, None where it is not kept."""
        path = self.path(key)
        try:
            with path.open("rb") as file:
                data = file.read()
                os.utime(file.fileno())
        except OSError:
            return None
        return data if len(data) == length else None

    def put(self, key: str, data: bytes) -> None:
        """Keep an entry, and let go of old ones where it needs their room."""
        if len(data) > self.limit:
            return
        path = self.path(key)
        with suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = path.with_name(f".{uuid.uuid4().hex}")
            with self.room(len(data)):
                try:
                    temporary.write_bytes(data)
                    temporary.replace(path)
                except OSError:
                    temporary.unlink(missing_ok=True)
                    raise

    def drop(self, key: str) -> None:
        """Forget an entry."""
        with suppress(OSError):
            self.path(key).unlink()

    @contextmanager
    def room(self, size: int) -> Iterator[None]:
        """Hold the lock with ``size`` more bytes free below the bound, and count them as taken when the block ends."""
        with (self.folder / "taken").open("a+", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # of this opening alone: threads and forks have their own
            file.seek(0)
            text = file.read()
            taken = int(text) if text.isdigit() else self.weigh(self.limit)
            if taken + size > self.limit:
                taken = self.weigh(int(self.limit * KEPT) - size)
            yield
            file.seek(0)
            file.truncate()
            file.write(str(taken + size))

    def weigh(self, keep: int) -> int:
        """Remove entries, the longest unused first, until ``keep`` bytes are left at most; returns what is left [bytes]."""
        found = []
        for entry in self.entries():
            with suppress(OSError):
                status = entry.stat()
                found.append((status.st_mtime_ns, status.st_size, entry.path))
        left = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if left <= max(keep, 0):
                break
            with suppress(OSError):
                os.unlink(path)  # noqa: PTH108
            left -= size
        return left

    def entries(self) -> Iterator["os.DirEntry[str]"]:
        """Yield every entry, and what a killed process was writing."""
        for folder in os.scandir(self.folder):
            if folder.is_dir(follow_symlinks=False):
                yield from os.scandir(folder.path)

    def file(self, key: str, ending: str, fill: Callable[[Path], None]) -> Path:
        """Return a file of the cache for who needs a path, made by ``fill`` where it is not kept."""
        path = self.path(key).with_suffix(ending)
        if not path.is_file():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = path.with_name(f".{uuid.uuid4().hex}")
            try:
                fill(temporary)
                with self.room(temporary.stat().st_size):
                    temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        os.utime(path)
        return path
