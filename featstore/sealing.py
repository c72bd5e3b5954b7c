"""Sealing: a file is whole under its name, or is not there at all."""

import os
import re
import socket
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .cache import cache_folder
from .errors import RemoteError, StoreError
from .places import as_remote

__all__ = [
    "discard",
    "flush",
    "leftovers",
    "publish",
    "sealed",
    "storing",
    "sweep",
    "temporary_for",
    "write_bytes",
    "write_text",
]

PREFIX = ".tmp-"
LEFTOVER = re.compile(re.escape(PREFIX) + r"(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]{8}$")

ABANDONED = 24 * 3600.0  # [s]; a shard that is being made grows with every image

# Names this process is writing now. A leftover may bear this process's own number (in a container every run is process 7),
# so the number alone does not tell that a file is still being written.
WRITING: set[Path] = set()


def temporary_for(path: Path) -> Path:
    """Return a new local name that tells which process on which host is writing: beside ``path``, or where that is remote
    in the cache's folder.

    It ends in ``publish`` or in ``discard``.
    """
    beside = path.absolute() if as_remote(path) is None else cache_folder("writing") / path.name
    temporary = beside.with_name(f"{PREFIX}{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    WRITING.add(temporary)
    return temporary


def publish(temporary: Path, path: Path, replace: bool = True) -> None:
    """Flush ``temporary`` to the disk, give it its name, and flush the folder that says so; or upload it.

    Without ``replace`` a file that bears the name already stays: raises FileExistsError. Behind a URL, where nobody can look
    and write in one step, one that comes in the same moment may be replaced.
    """
    remote = as_remote(path)
    if remote is not None:
        if not replace and path.exists():
            raise FileExistsError(f"{path} is there already")
        remote.upload(temporary)
        discard(temporary)
        return
    flush(temporary)
    if replace:
        temporary.replace(path)
    else:
        give_name(temporary, path)
    WRITING.discard(temporary)
    flush(path.parent)


def give_name(temporary: Path, path: Path) -> None:
    """Rename a file to a name that nobody bears; raises FileExistsError where somebody does."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if path.exists():
            raise FileExistsError(f"{path} is there already") from None
        temporary.replace(path)
        return
    temporary.unlink()


def discard(temporary: Path) -> None:
    """Remove ``temporary`` where it is still there and can be; the error that led here is the one to tell."""
    with suppress(OSError):
        # Whoever failed to close the file may hold it open: emptied first, it gives its space back to a full disk at once.
        os.truncate(temporary, 0)
        temporary.unlink()
    WRITING.discard(temporary)


def flush(path: Path) -> None:
    """Have the kernel write a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def sealed(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write; it becomes ``path`` when the block ends, and is removed when it raises."""
    temporary = temporary_for(path)
    try:
        yield temporary
        publish(temporary, path)
    except BaseException:
        discard(temporary)
        raise


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn the ways in which a disk refuses to take ``path`` into StoreError; HDF5 says so in RuntimeErrors, too."""
    try:
        yield
    except RemoteError:
        raise
    except (OSError, RuntimeError) as error:
        said = re.search(r"error message = '([^']+)'", str(error))
        reason = said.group(1) if said else getattr(error, "strerror", None) or " ".join(str(error).split())
        raise StoreError(f"cannot write {path}: {reason}; make room or choose another --root and try again") from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or nothing."""
    with sealed(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file or nothing."""
    write_bytes(path, text.encode())


def sweep(folder: Path, dead: Collection[tuple[str, int]] = ()) -> list[Path]:
    """Remove what dead processes were writing in ``folder``; returns what was removed.

    Those of this host are looked up; of other hosts those are taken for dead that ``dead`` names by (host, pid), and those
    whose file nobody has touched for a day.
    """
    removed = []
    if as_remote(folder) is not None:
        removed += sweep(cache_folder("writing"))
    for path in leftovers(folder, dead)[0]:
        with suppress(FileNotFoundError):
            path.unlink()
            removed.append(path)
    return removed


def leftovers(folder: Path, known: Collection[tuple[str, int]] = ()) -> tuple[list[Path], list[Path]]:
    """Return the temporary files in ``folder``: of dead processes, as ``sweep`` tells, and what may be written yet."""
    dead: list[Path] = []
    alive: list[Path] = []
    for path in sorted(folder.absolute().glob(PREFIX + "*")):
        match = LEFTOVER.match(path.name)
        left = match is not None and is_left(path, match["host"], int(match["pid"]), known)
        (dead if left else alive).append(path)
    return dead, alive


def is_left(path: Path, host: str, pid: int, dead: Collection[tuple[str, int]]) -> bool:
    """Whether nobody writes ``path`` any more, which the process ``pid`` of ``host`` began."""
    if (host, pid) in dead:
        return True
    if host == socket.gethostname():
        return not is_written(path, pid)
    try:
        return time.time() - path.stat().st_mtime > ABANDONED
    except FileNotFoundError:
        return False


def is_written(path: Path, pid: int) -> bool:
    """Whether a process of this host may still be writing ``path``, whose name gives the process ``pid``."""
    return path in WRITING if pid == os.getpid() else lives(pid)


def lives(pid: int) -> bool:
    """Whether a process of this host is alive."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return not is_zombie(pid)


def is_zombie(pid: int) -> bool:
    """Whether a process has ended and nobody has asked how, which its number outlives: so it stays in many a container."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[:1]
    except OSError:
        return False
    return state == [b"Z"]
