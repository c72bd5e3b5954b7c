"""Bytes and status of what a path names: a whole file, or one inside a tar, Parquet or MATLAB file (``train.tar::a.jpg``)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, cast

from .errors import DecodeError, RemoteError
from .mat_members import mat_size, read_mat
from .parquet_members import read_parquet
from .places import as_remote, stored_path
from .remote import RemotePath
from .tar_members import normal, read_tar, tar_index

__all__ = ["SEPARATOR", "MemberStatus", "container_of", "naming", "parted", "read_bytes", "read_status"]

SEPARATOR = "::"
READERS = {"tar": read_tar, "parquet": read_parquet, "mat": read_mat}


class MemberStatus(NamedTuple):
    """Size of what is inside [bytes], None where only reading tells, and when its file was changed [ns since 1970]."""

    st_size: int | None
    st_mtime_ns: int


def parted(path: str | Path) -> tuple[Path, str, str] | None:
    """Return the file, its kind and the name inside of a path into a tar, Parquet or MATLAB file; None for any other.

    A file that bears such a name itself is an ordinary file.
    """
    text = path if isinstance(path, str) else str(path)
    if SEPARATOR not in text:
        return None
    split = split_at(text)
    if split is None:
        return None
    container, kind, member = split
    remote = as_remote(stored_path(text) if isinstance(path, str) else path)
    if remote is not None:
        if remote.listing is not None and remote.url in remote.listing.files:
            return None
        return cast(Path, RemotePath(container, remote.listing)), kind, member
    if os.path.lexists(text):
        return None
    return local_path(container), kind, member


@lru_cache(maxsize=256)
def local_path(text: str) -> Path:
    """Return a path that is asked for again and again."""
    return Path(text)


def split_at(text: str) -> tuple[str, str, str] | None:
    """Return what stands before and behind the first ``::`` that ends the name of a container, and its kind; else None."""
    place = text.find(SEPARATOR)
    while place >= 0:
        kind = text[:place].rpartition(".")[2].lower()
        if kind in READERS and text[place + len(SEPARATOR) :]:
            return text[:place], kind, text[place + len(SEPARATOR) :]
        place = text.find(SEPARATOR, place + 1)
    return None


def container_of(path: str) -> str:
    """Return the file that holds what a path names: itself, or the one that it is in."""
    inside = parted(path)
    return path if inside is None else str(inside[0])


def read_bytes(path: str | Path) -> bytes:
    """Return the bytes of a file or of one inside another. Nothing is unpacked; any number of threads may ask.

    ``path`` is local or a URL. Raises OSError where the file is not there or may not be read, RemoteError, and DecodeError
    where it is damaged or holds nothing of that name.
    """
    inside = parted(path)
    if inside is None:
        return (stored_path(path) if isinstance(path, str) else path).read_bytes()
    container, kind, member = inside
    return READERS[kind](container, member)


def read_status(path: str | Path) -> os.stat_result | MemberStatus:
    """Return size and time of change of a file or of one inside another; raises what ``read_bytes`` raises."""
    if isinstance(path, str) and SEPARATOR not in path and "://" not in path:
        return os.stat(path)  # noqa: PTH116  (a million of them are asked for)
    inside = parted(path)
    if inside is None:
        return (stored_path(path) if isinstance(path, str) else path).stat()
    container, kind, member = inside
    if kind == "tar":
        index = tar_index(container)
        place = index.members.get(normal(member))
        if place is None:
            raise DecodeError(index.damage or f"{container.name} holds no file of this name")
        return MemberStatus(place[1], index.changed)
    return MemberStatus(mat_size(container, member) if kind == "mat" else None, container.stat().st_mtime_ns)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have errors of reading a file name it; a missing file, too, is a DecodeError. A server's errors say all themselves."""
    try:
        yield
    except DecodeError as error:
        raise DecodeError(f"{path}: {error}") from error
    except RemoteError:
        raise
    except OSError as error:
        raise DecodeError(f"{path}: {error.strerror}; has the data set been moved? index it again") from error
