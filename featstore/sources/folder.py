"""Any folder of images: the class is the first sub-folder, below train/, val/ or test/ where there are such."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from featstore.records import ImageRecord, Problem

from .base import require_folder

__all__ = ["FolderSource"]

ENDINGS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".apng",
        ".bmp",
        ".dib",
        ".gif",
        ".webp",
        ".avif",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".jp2",
        ".tga",
    ]
)
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
SPLITS |= {"test": "test", "testing": "test"}


class FolderSource:
    """A folder, recursively; hidden files and linked folders are passed over."""

    layout = "folder"
    expects = "image files (jpg, png, webp, tif …) in it or in its sub-folders"
    home: Path | None = None

    def detect(self, folder: Path) -> bool:
        """Fits every folder."""
        return folder.is_dir()

    def read(self, folder: Path) -> Iterator[ImageRecord | Problem]:
        """Yield images by sorted path; a name that is not UTF-8 is a problem. Raises SourceError for a missing folder."""
        require_folder(folder)
        for place, folders, files in os.walk(folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                if not name.startswith(".") and os.path.splitext(name)[1].lower() in ENDINGS:  # noqa: PTH122
                    path = (Path(place) / name).relative_to(folder).as_posix()
                    yield describe(path) if is_text(path) else unreadable_name(path)


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


def describe(path: str) -> ImageRecord:
    """Return the record of one file, by its path below the source."""
    folders = PurePosixPath(path).parts[:-1]
    split = SPLITS.get(folders[0].lower()) if folders else None
    rest = folders[1:] if split else folders
    splits = (f"folder/{split}",) if split else ()
    return ImageRecord(path, path, split=split, splits=splits, label=rest[0] if rest else None)
