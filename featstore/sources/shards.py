"""Data sets that come in shards: which files they are, and the split that a shard's name tells."""

import re
from collections.abc import Iterator
from pathlib import Path

from featstore.errors import SourceError
from featstore.places import as_remote
from featstore.records import ImageRecord, Problem

from .base import Source, is_text, nothing_found
from .files import names_in
from .folder import ENDINGS, SPLITS

__all__ = ["only_shards", "require_images", "shards_of", "split_named"]

LOOKED_AT, DEPTH = 8, 3
"""How many sub-folders of a folder, and how far down, tell whether it is one of shards: there may be thousands."""


def shards_of(source: Path, endings: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """Yield the shards of a source by sorted path: itself where it is one, else those below it at any depth.

    Each comes with its POSIX path below the folder that its images' paths begin in.
    """
    if source.name.lower().endswith(endings) and source.is_file():
        yield source.name, source
        return
    found = []
    for path in source.rglob("*"):
        below = path.relative_to(source)
        if not path.name.lower().endswith(endings) or any(part.startswith(".") for part in below.parts):
            continue
        if is_text(below.as_posix()) and (as_remote(path) is not None or path.is_file()):
            found.append((below.as_posix(), path))
    yield from sorted(found, key=lambda pair: pair[0])


def only_shards(source: Path, endings: tuple[str, ...], depth: int = DEPTH) -> bool:
    """Whether a source is a shard, or a folder of shards: some in it or below it, and no image as high up as they are."""
    if depth == DEPTH and source.is_file():
        return source.name.lower().endswith(endings)
    folders, files = names_in(source)
    if any(name.lower().endswith(tuple(ENDINGS)) for name in files):
        return False
    if any(name.lower().endswith(endings) for name in files):
        return True
    below = [source / name for name in folders[:LOOKED_AT]] if depth else []
    # Photographs in one sub-folder make it a folder of photographs, in which somebody left a tar.
    return not any(holds_images(path) for path in below) and any(
        only_shards(path, endings, depth - 1) for path in below
    )


def holds_images(folder: Path) -> bool:
    """Whether a folder has an image in it."""
    return any(name.lower().endswith(tuple(ENDINGS)) for name in names_in(folder)[1])


def require_images(
    folder: Path, source: Source, found: Iterator[ImageRecord | Problem]
) -> Iterator[ImageRecord | Problem]:
    """Yield what is found; raises SourceError, with the first problem, where no image is among it."""
    first: Problem | None = None
    empty = True
    for item in found:
        if isinstance(item, Problem):
            first = first or item
        else:
            empty = False
        yield item
    if empty:
        told = f"; {first.path}: {first.error}" if first else ""
        raise SourceError(f"{nothing_found(folder, source)}{told}")


def split_named(path: str) -> str | None:
    """Return the split that a shard's path tells: ``train-0000.tar``, ``imagenet1k-validation-00.tar``, ``test/0.parquet``."""
    *folders, name = path.split("/")
    words = [word for word in re.split(r"[-_.\d]+", name.lower()) if word]
    for word in (*words, *(folder.lower() for folder in reversed(folders))):
        if word in SPLITS:
            return SPLITS[word]
    return None
