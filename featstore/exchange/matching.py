"""Which of a data set's images each imported file is of."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from featstore.members import SEPARATOR

__all__ = ["Entry", "Image", "Unmatched", "match"]

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """The features of one image in the folder that is imported.

    ``name`` is a relative path without ending. ``image_id`` and ``sha256`` are what an export of ours tells, else None.
    ``place`` is what the format's reader finds them by.
    """

    name: str
    place: Any
    image_id: str | None = None
    sha256: str | None = None


class Image(NamedTuple):
    """One image as the manifest lists it; ``path`` is below the data set's folder, or absolute."""

    image_id: str
    path: str
    sha256: str


@dataclass(frozen=True)
class Unmatched:
    """Features that are no image's here, with the reason."""

    name: str
    reason: str


def match(entries: Iterable[Entry], images: Sequence[Image]) -> tuple[dict[str, Entry], list[Unmatched]]:
    """Return the entry of each image found, by the SHA-256 of its bytes, and what is left.

    Where the SHA-256 is told, it alone decides. Else a file is of the image whose path or image_id, with or without its
    ending, ends in the file's name, or begins nowhere but within it: ``VOC2012/JPEGImages/x`` of ``JPEGImages/x`` and of
    ``data/VOC2012/JPEGImages/x``. The longest agreement wins, and two that agree alike are none.
    """
    shas = {image.sha256 for image in images}
    ids = {image.image_id for image in images}
    known = by_last_part(images)
    found: dict[str, tuple[int, Entry]] = {}
    left: list[Unmatched] = []
    for entry in entries:
        if entry.sha256 is not None:
            if entry.sha256 in shas:
                found.setdefault(entry.sha256, (0, entry))
            else:
                told = "the image has other bytes here" if entry.image_id in ids else "no image has these bytes"
                left.append(Unmatched(entry.image_id or entry.name, told))
            continue
        agreed, fits = nearest(entry.name, known)
        if len({image.sha256 for image in fits}) != 1:
            both = " and ".join(sorted({image.image_id for image in fits})[:2])
            left.append(Unmatched(entry.name, f"fits {both} alike" if fits else "no image has this name"))
            continue
        sha256 = fits[0].sha256
        other = found.get(sha256)
        if other is None or other[0] < agreed:
            found[sha256] = agreed, entry
        if other is not None:
            loser = entry if other[0] >= agreed else other[1]
            left.append(Unmatched(loser.name, f"another file is of {fits[0].image_id} already"))
    return {sha256: entry for sha256, (_, entry) in found.items()}, left


def by_last_part(images: Sequence[Image]) -> dict[str, list[tuple[Parts, Image]]]:
    """Return every name that each image has, by the last part of the name."""
    known: dict[str, list[tuple[Parts, Image]]] = {}
    for image in images:
        names = {image.path, image.image_id, without_ending(image.path), without_ending(image.image_id)}
        for name in names:
            parts = parts_of(name)
            known.setdefault(parts[-1], []).append((parts, image))
    return known


def nearest(name: str, known: dict[str, list[tuple[Parts, Image]]]) -> tuple[int, list[Image]]:
    """Return with how many parts images agree with a name, and those that agree with most."""
    best = 0
    fits: list[Image] = []
    parts = parts_of(name)
    for other, image in known.get(parts[-1], []):
        common = min(len(parts), len(other))
        if parts[-common:] != other[-common:] or common < best:
            continue
        fits = [*fits, image] if common == best else [image]
        best = common
    return best, fits


def parts_of(name: str) -> Parts:
    """Return the parts of a path; an absolute one is as one that begins at its first folder, a tar is a folder."""
    return PurePosixPath(name.lstrip("/").replace(SEPARATOR, "/")).parts or ("",)


def without_ending(name: str) -> str:
    """Return a path without its ending."""
    ending = PurePosixPath(name).suffix
    return name[: -len(ending)] if ending else name
