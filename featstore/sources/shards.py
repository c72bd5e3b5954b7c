"""Data sets that come in shards: which files they are, and the split that a shard's name tells."""

import re
from collections.abc import Iterator
from pathlib import Path

from featstore.places import as_remote

from .base import is_text
from .files import names_in
from .folder import ENDINGS, SPLITS

__all__ = ["only_shards", "shards_of", "split_named"]

LOOKED_AT = 8
"""How many sub-folders tell whether a folder is one of shards: there may be thousands."""


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


def only_shards(source: Path, endings: tuple[str, ...]) -> bool:
    """Whether a source is a shard, or a folder of shards: some in it or in its sub-folders, and no image beside them."""
    if source.is_file():
        return source.name.lower().endswith(endings)
    folders, files = names_in(source)
    if any(name.lower().endswith(tuple(ENDINGS)) for name in files):
        return False
    if any(name.lower().endswith(endings) for name in files):
        return True
    below = [names_in(source / name) for name in folders[:LOOKED_AT]]
    images = any(name.lower().endswith(tuple(ENDINGS)) for _, names in below for name in names)
    return not images and any(name.lower().endswith(endings) for _, names in below for name in names)


def split_named(path: str) -> str | None:
    """Return the split that a shard's path tells: ``train-0000.tar``, ``imagenet1k-validation-00.tar``, ``test/0.parquet``."""
    *folders, name = path.split("/")
    words = [word for word in re.split(r"[-_.\d]+", name.lower()) if word]
    for word in (*words, *(folder.lower() for folder in reversed(folders))):
        if word in SPLITS:
            return SPLITS[word]
    return None
