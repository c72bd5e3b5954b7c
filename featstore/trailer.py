"""The last line of a sealed shard: the BLAKE2b-256 of every byte before it. HDF5 never looks behind its own end."""

import hashlib
import io
import re
from pathlib import Path
from typing import BinaryIO

from .errors import CorruptError

__all__ = ["LENGTH", "append_trailer", "digest_before", "read_trailer"]

LINE = re.compile(rb"featstore blake2b ([0-9a-f]{64})\n")
LENGTH = len("featstore blake2b ") + 64 + 1
"""How long the trailer is [bytes]."""

BLOCK = 1 << 20


def append_trailer(path: Path) -> str:
    """Add the trailer to a closed file; returns the digest in hex.

    The file is read back, from the page cache: HDF5 does not write front to back, so nothing can be hashed on the way.
    """
    with path.open("r+b") as file:
        digest = digest_before(file, file.seek(0, io.SEEK_END))
        file.seek(0, io.SEEK_END)
        file.write(f"featstore blake2b {digest}\n".encode("ascii"))
    return digest


def read_trailer(path: Path) -> str:
    """Return the digest that a file's last line tells; raises CorruptError where that is no trailer."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - LENGTH))
        match = LINE.fullmatch(file.read(LENGTH))
    if match is None:
        raise CorruptError(f"{path} does not end as a sealed shard does: it was cut short or changed")
    return match[1].decode("ascii")


def digest_before(file: BinaryIO, end: int) -> str:
    """Return the BLAKE2b-256 in hex of the first ``end`` bytes of an open file, a block at a time."""
    sums = hashlib.blake2b(digest_size=32)
    file.seek(0)
    while end > 0 and (block := file.read(min(BLOCK, end))):
        sums.update(block)
        end -= len(block)
    return sums.hexdigest()
