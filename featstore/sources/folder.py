"""Any folder of images: the class is the first sub-folder, below train/, val/ or test/ where there are such."""

import os
from collections.abc import Iterator
from pathlib import Path

from featstore.places import as_remote
from featstore.records import ImageRecord, Meaning, Problem

from .base import is_text, nothing_found, require_folder, unreadable_name

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
    holds: tuple[str, ...] = ("split", "label")
    home: Path | None = None

    def detect(self, folder: Path) -> bool:
        """Fits every folder."""
        return folder.is_dir()

    def read(self, folder: Path) -> Iterator[ImageRecord | Problem]:
        """Yield images sorted by path; a name that is not UTF-8 and a sub-folder that cannot be listed are problems.

        Raises SourceError for a folder that is missing or holds neither images nor problems.
        """
        require_folder(folder)
        closed: list[Problem] = []
        paths = sorted(image_paths(folder, closed))
        if not paths and not closed:
            raise nothing_found(folder, self)
        yield from closed
        for path in paths:
            yield describe(path) if is_text(path) else unreadable_name(path)

    def meaning(self, folder: Path) -> Meaning:
        """There are no masks."""
        return Meaning()


def image_paths(folder: Path, closed: list[Problem]) -> Iterator[str]:
    """Yield the POSIX path below ``folder`` of every image file; add what cannot be listed to ``closed``."""
    if as_remote(folder) is not None:
        paths = (path.relative_to(folder) for path in folder.rglob("*"))
        visible = (path for path in paths if not any(name.startswith(".") for name in path.parts))
        yield from (path.as_posix() for path in visible if path.suffix.lower() in ENDINGS)
        return

    def note(error: OSError) -> None:
        path = Path(error.filename).relative_to(folder).as_posix()
        reason = f"the folder cannot be listed: {error.strerror}"
        closed.append(Problem(path if is_text(path) else ascii(path), "image", reason))

    start = len(os.path.join(folder, ""))  # noqa: PTH118  (text all the way: paths of a million files take minutes)
    for place, folders, files in os.walk(folder, onerror=note):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = place[start:].replace(os.sep, "/") + "/" if len(place) > start else ""
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in ENDINGS:  # noqa: PTH122
                yield below + name


def describe(path: str) -> ImageRecord:
    """Return the record of one file, by its path below the source."""
    folders = path.split("/")[:-1]
    split = SPLITS.get(folders[0].lower()) if folders else None
    rest = folders[1:] if split else folders
    splits = (f"folder/{split}",) if split else ()
    return ImageRecord(path, path, split=split, splits=splits, label=rest[0] if rest else None)
