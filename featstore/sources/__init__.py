"""Layouts of image data sets: one small file each, behind one protocol; other packages add theirs by entry point."""

from collections.abc import Callable, Iterator
from pathlib import Path

from featstore.errors import InputError, SourceError

from .ade20k import Ade20kSource
from .base import Source, nothing_found, require_folder
from .coco import CocoSource
from .davis import DavisSource
from .demo import DemoSource
from .folder import FolderSource
from .frames import FramesSource
from .imagenet import ImagenetSource
from .levels import nearby
from .named import ListSource
from .nyu import NyuSource
from .parquet import ParquetSource
from .plugins import PlugIn, load_all, plug_ins
from .voc import VocSource
from .webdataset import WebDatasetSource

__all__ = ["LAYOUTS", "PlugIn", "Source", "available", "detect", "get", "names", "nothing_found"]

BUILT_IN: tuple[Source, ...] = (
    DavisSource(),  # before voc, which has JPEGImages too
    VocSource(),
    Ade20kSource(),
    CocoSource(),
    ImagenetSource(),
    NyuSource(),
    FramesSource(),
    WebDatasetSource(),
    ParquetSource(),
    ListSource(),
    FolderSource(),
    DemoSource(),
)
"""In the order in which they are tried. A new layout is its file and a line here."""

LAYOUTS: dict[str, Source] = {source.layout: source for source in BUILT_IN}
FALLBACK = FolderSource.layout
BY_FOLDERS = ("davis", "voc", "ade20k", "coco", "imagenet", "nyu")
"""Layouts that the names of folders give away, to be looked for above and below one that is read as a mere folder."""

FILES = "a .tar, .parquet or .mat with images, or a .txt, .csv, .tsv or .parquet that names them"


def ignore(line: str) -> None:
    """Take no notice."""


def names() -> list[str]:
    """Return the name of every layout; those of other packages are not loaded for it."""
    return [*LAYOUTS, *(entry.name for entry in plug_ins() if entry.name not in LAYOUTS)]


def available(tell: Callable[[str], object] = ignore) -> Iterator[Source]:
    """Yield every layout, those of other packages last; ``tell`` gets a line for each that cannot be loaded."""
    yield from LAYOUTS.values()
    yield from load_all(LAYOUTS, tell)


def get(layout: str) -> Source:
    """Return the reader of a layout; raises InputError naming those there are, or saying why one cannot be loaded."""
    if layout in LAYOUTS:
        return LAYOUTS[layout]
    broken: list[str] = []
    if any(entry.name == layout for entry in plug_ins()):
        found = next(load_all(LAYOUTS, broken.append, layout), None)
        if found is not None:
            return found
        raise InputError("; ".join(broken))
    raise InputError(f"unknown layout {layout!r}: choose from {', '.join(names())}")


def detect(folder: Path, tell: Callable[[str], object] = ignore) -> Source:
    """Return the reader that fits a folder or a file; other packages are asked where no layout of featstore's own fits.

    ``tell`` gets a line for each of them that fails, and one where the folder above or below is likely meant. Raises
    SourceError where it is missing, or a file that none reads.
    """
    alone = folder.is_file()
    if not alone:
        require_folder(folder)
    for source in available(tell):
        try:
            if source.layout != FALLBACK and source.detect(folder):
                return source
        except SourceError as error:
            if not isinstance(source, PlugIn):
                raise
            tell(str(error))
    if alone:
        raise SourceError(f"{folder} is a file that no layout reads: give the folder that holds the images, or {FILES}")
    for line in nearby(folder, [LAYOUTS[name] for name in BY_FOLDERS]):
        tell(line)
    return LAYOUTS[FALLBACK]
