"""File names for images: safe on every file system, unique, and the image's own wherever that is possible."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

__all__ = ["file_names"]

UNSAFE = re.compile(r'[<>:"\\|?*%\x00-\x1f\x7f]')
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
LIKE_A_FILE = re.compile(r"\.(npy|safetensors)$", re.IGNORECASE)
LONGEST = 180
"""Bytes of one part of a name; file systems take 255, endings and temporary names want some."""


def file_names(image_ids: Sequence[str], paths: Sequence[str], dots: bool = True) -> list[str]:
    """Return for each image a relative name with ``/`` and without ending.

    The image_id's folders are kept and the ending that its file ``path`` has is dropped, except where two images would
    then share a name, as ``a.jpg`` and ``a.png`` do, or ``A.jpg`` and ``a.jpg`` on a disk that does not tell case. What a
    file name cannot hold is written as ``%`` and its hex code. ``dots`` False does so with dots, too.
    """
    short = [safe(without_ending(name, path), dots) for name, path in zip(image_ids, paths, strict=True)]
    taken = Counter(map(folded, short))
    long = [
        name if taken[folded(name)] == 1 else safe(image_id, dots)
        for name, image_id in zip(short, image_ids, strict=True)
    ]
    taken = Counter(map(folded, long))
    return [
        name if taken[folded(name)] == 1 else f"{name}~{mark(image_id)}"
        for name, image_id in zip(long, image_ids, strict=True)
    ]


def without_ending(image_id: str, path: str) -> str:
    """Return an image_id without the ending of its image's file, where it has that."""
    ending = PurePosixPath(path).suffix
    return image_id[: -len(ending)] if ending and image_id.endswith(ending) else image_id


def folded(name: str) -> str:
    """Return what a file system that tells neither case nor Unicode forms apart compares."""
    return unicodedata.normalize("NFC", name).casefold()


def safe(name: str, dots: bool) -> str:
    """Return a name every part of which can be a file's."""
    *folders, last = name.split("/")
    return "/".join([*(folder_part(part) for part in folders), part_of(last, dots)])


def folder_part(text: str) -> str:
    """Return one folder's name, that no exported file's can equal."""
    return LIKE_A_FILE.sub(lambda found: f"%2E{found[1]}", part_of(text, True))


def part_of(text: str, dots: bool) -> str:
    """Return one part of a name."""
    text = UNSAFE.sub(coded, text)
    if not dots:
        text = text.replace(".", "%2E")
    if text.startswith("."):  # hidden, or the folder itself or the one above
        text = f"%2E{text[1:]}"
    if not text or RESERVED.match(text):
        text = f"%{ord(text[0]):02X}{text[1:]}" if text else "%"
    if text[-1] in ". ":
        text = text[:-1] + f"%{ord(text[-1]):02X}"
    data = text.encode()
    return text if len(data) <= LONGEST else f"{data[:LONGEST].decode(errors='ignore')}~{mark(text)}"


def coded(found: re.Match[str]) -> str:
    """Return a character as % and its hex code."""
    return f"%{ord(found[0]):02X}"


def mark(text: str) -> str:
    """Return twelve digits that tell long or alike names apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
