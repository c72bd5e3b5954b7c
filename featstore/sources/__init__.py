"""Layouts of image data sets: one small file each, behind one protocol."""

from pathlib import Path

from featstore.errors import InputError

from .base import Source, nothing_found, require_folder
from .demo import DemoSource
from .folder import FolderSource
from .voc import VocSource

__all__ = ["LAYOUTS", "Source", "detect", "get", "nothing_found"]

LAYOUTS: dict[str, Source] = {source.layout: source for source in (VocSource(), FolderSource(), DemoSource())}
"""By name, in the order in which they are tried."""


def get(layout: str) -> Source:
    """Return the reader of a layout; raises InputError naming those there are."""
    if layout not in LAYOUTS:
        raise InputError(f"unknown layout {layout!r}: choose from {', '.join(LAYOUTS)}")
    return LAYOUTS[layout]


def detect(folder: Path) -> Source:
    """Return the reader that fits a folder; raises SourceError where it is missing."""
    require_folder(folder)
    return next(source for source in LAYOUTS.values() if source.detect(folder))
