"""Sealing: a file is whole under its name, or is not there at all."""

import os
import re
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["sealed", "sweep", "write_bytes", "write_text"]

PREFIX = ".tmp-"
LEFTOVER = re.compile(re.escape(PREFIX) + r"(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]{8}$")


def temporary_for(path: Path) -> Path:
    """Return a name beside ``path`` that tells which process on which host is writing."""
    return path.with_name(f"{PREFIX}{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def publish(temporary: Path, path: Path) -> None:
    """Flush ``temporary`` to the disk, give it its name, and flush the folder that says so."""
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def sealed(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write; it becomes ``path`` when the block ends, and is removed when it raises."""
    temporary = temporary_for(path)
    try:
        yield temporary
        publish(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or nothing."""
    with sealed(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file or nothing."""
    write_bytes(path, text.encode())


def sweep(folder: Path) -> list[Path]:
    """Remove what dead processes of this host were writing in ``folder``; returns what was removed."""
    removed = []
    for path in folder.glob(PREFIX + "*"):
        match = LEFTOVER.match(path.name)
        if match and match["host"] == socket.gethostname() and not is_alive(int(match["pid"])):
            with suppress(FileNotFoundError):
                path.unlink()
                removed.append(path)
    return removed


def is_alive(pid: int) -> bool:
    """Whether a process of this host bears the number; one's own does not count as someone else writing."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()
