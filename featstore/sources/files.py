"""What layouts ask the disk, one folder at a time, and how they tell of files that have no partner."""

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from featstore.errors import SourceError
from featstore.places import as_remote
from featstore.records import ImageRecord, Problem

from .base import is_text

__all__ = ["JPEG", "PNG", "by_stem", "distinct", "few", "names_in", "read_text", "unmatched"]

JPEG, PNG = (".jpg", ".jpeg"), (".png",)
NAMED = 5


def names_in(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the files in a folder, sorted, hidden ones left out; none where there is none.

    Raises SourceError for a folder that may not be listed.
    """
    folders: list[str] = []
    files: list[str] = []
    try:
        if as_remote(folder) is not None:
            for path in folder.iterdir():
                (folders if path.is_dir() else files).append(path.name)
        else:
            with os.scandir(folder) as entries:
                for entry in entries:
                    (folders if entry.is_dir() else files).append(entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    except OSError as error:
        raise SourceError(f"{folder} cannot be listed: {error.strerror}; see who may read it") from error
    return sorted(filter(visible, folders)), sorted(filter(visible, files))


def visible(name: str) -> bool:
    """Whether a name is not hidden."""
    return not name.startswith(".")


def by_stem(folder: Path, endings: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the files of a folder by their names without ending; none where there is no folder."""
    return stems_of(names_in(folder)[1], endings)


def stems_of(names: Iterable[str], endings: tuple[str, ...]) -> dict[str, list[str]]:
    """Return file names of these endings by stem."""
    found: dict[str, list[str]] = {}
    for name in names:
        stem, ending = os.path.splitext(name)  # noqa: PTH122
        if ending.lower() in endings:
            found.setdefault(stem, []).append(name)
    return found


def read_text(path: Path) -> str | None:
    """Return a text file, None where there is none. Bytes that are not UTF-8 are taken for Latin-1."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def few(names: Collection[str]) -> str:
    """Return the first few of some names."""
    shown = [name if is_text(name) else ascii(name) for name in sorted(names)[:NAMED]]
    return ", ".join(shown) + (" …" if len(names) > len(shown) else "")


def unmatched(path: str, step: str, names: Collection[str], total: int, words: str) -> Iterator[Problem]:
    """Yield one problem for all names without a partner: ``3 of 20 <words>: a, b, c``; none where there are none."""
    if names:
        yield Problem(path, step, f"{len(names):,} of {total:,} {words}: {few(names)}")


def distinct(found: Iterable[ImageRecord | Problem]) -> Iterator[ImageRecord | Problem]:
    """Yield what is found; a second image of one image_id is a problem."""
    seen: set[str] = set()
    for item in found:
        if isinstance(item, ImageRecord):
            if item.image_id in seen:
                reason = "another image of the data set has this image_id, it is left out: rename it"
                yield Problem(item.path, "image", reason, item.image_id)
                continue
            seen.add(item.image_id)
        yield item
