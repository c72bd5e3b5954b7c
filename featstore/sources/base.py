"""What a layout's reader is, and the words for a folder that is not as expected."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from featstore.errors import SourceError
from featstore.records import ImageRecord, Problem

__all__ = ["Source", "nothing_found", "require_folder"]


class Source(Protocol):
    """Reads one layout. ``expects`` says in one line what the folder should look like.

    ``home`` is where its images are when nobody says, None for layouts that can be anywhere.
    """

    layout: str
    expects: str
    home: Path | None

    def detect(self, folder: Path) -> bool:
        """Whether ``folder`` is of this layout."""
        ...

    def read(self, folder: Path) -> Iterator[ImageRecord | Problem]:
        """Yield every image once, and what could not be read; raises SourceError where nothing is as expected."""
        ...


def require_folder(folder: Path) -> None:
    """Raise SourceError where ``folder`` is none."""
    if folder.is_file():
        raise SourceError(f"{folder} is a file: give the folder that holds the images")
    if not folder.is_dir():
        raise SourceError(f"there is no folder {folder}: give an existing one with --source")


def nothing_found(folder: Path, source: Source) -> SourceError:
    """Return the error for a folder in which the layout finds no image."""
    return SourceError(f"no image found in {folder}; layout {source.layout} expects {source.expects}")
