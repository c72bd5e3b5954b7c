"""What a layout's reader is, and the words for a folder that is not as expected."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from featstore.errors import SourceError
from featstore.places import as_remote
from featstore.records import ImageRecord, Meaning, Problem
from featstore.transport import READ_ONLY

__all__ = ["HOLDS", "Source", "is_text", "nothing_found", "require_folder", "unreadable_name"]

HOLDS = ("split", "label", "boxes", "masks", "instances", "depth")
"""What a layout may tell of an image, in the order in which it is shown."""


class Source(Protocol):
    """Reads one layout. ``expects`` says in one line what the folder should look like.

    ``holds`` names what its records may have beside the image, of ``HOLDS``. ``home`` is where its images are when nobody
    says, None for layouts that can be anywhere.
    """

    layout: str
    expects: str
    holds: tuple[str, ...]
    home: Path | None

    def detect(self, folder: Path) -> bool:
        """Whether ``folder`` is of this layout."""
        ...

    def read(self, folder: Path) -> Iterator[ImageRecord | Problem]:
        """Yield every image once, in an order that two readings share, and what could not be read.

        Raises SourceError, on the first step, where the folder is missing, not of this layout or without an image.
        """
        ...

    def meaning(self, folder: Path) -> Meaning:
        """Return what the numbers in masks and depth maps mean; asked after ``read`` has come to its end."""
        ...


def require_folder(folder: Path) -> None:
    """Raise SourceError where ``folder`` is none, or none that may be listed."""
    if folder.is_file():
        raise SourceError(f"{folder} is a file: give the folder that holds the images")
    if not folder.is_dir():
        remote = as_remote(folder)
        hint = ", or the server lists no folders" if remote is not None and remote.protocol in READ_ONLY else ""
        raise SourceError(f"there is no folder {folder}{hint}: give an existing one with --source")
    if as_remote(folder) is None and not os.access(folder, os.R_OK | os.X_OK):
        raise SourceError(f"{folder} may not be read by this user: change its permissions")


def nothing_found(folder: Path, source: Source) -> SourceError:
    """Return the error for a folder in which the layout finds no image."""
    return SourceError(f"no image found in {folder}; layout {source.layout} expects {source.expects}")


def is_text(path: str) -> bool:
    """Whether a path can be written as UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def unreadable_name(path: str) -> Problem:
    """Return the problem of a name that no table can hold."""
    return Problem(ascii(path), "image", "the file's name is not UTF-8: rename it")
