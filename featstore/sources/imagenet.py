"""ImageNet (ILSVRC 2012): a folder a class, a flat val with its labels beside it, the Kaggle layout."""

import re
from collections.abc import Iterator
from pathlib import Path

from featstore.errors import SourceError
from featstore.records import ImageRecord, Meaning, Problem

from .base import is_text, nothing_found, unreadable_name
from .files import distinct, names_in, stems_of, unmatched
from .imagenet_labels import Notes, read_notes
from .levels import settle, wrapped

__all__ = ["ImagenetSource"]

CLASS = re.compile(r"n\d{8}")
FLAT = re.compile(r"ILSVRC2012_(val|test)_\d+\.jpe?g", re.IGNORECASE)
UNIQUE = re.compile(r"n\d{8}_|ILSVRC2012_")
SPLITS = {"train": "train", "val": "val", "validation": "val", "test": "test"}
KAGGLE = ("Data/CLS-LOC", "ILSVRC/Data/CLS-LOC")
ENDINGS = (".jpeg", ".jpg", ".png")


class ImagenetSource:
    """Labels are WordNet ids (``n01440764``). Boxes come from the Kaggle tables, else from
    Annotations/CLS-LOC, in the numbers that these hold.

    Subsets and sets of the same shape (Imagenette, ImageNet-A …) are read too; where their file names do not tell the class,
    images are called ``<class>/<name>``.
    """

    layout = "imagenet"
    expects = "train/n01440764/*.JPEG and val (so too, or flat with its labels), or Kaggle's ILSVRC/Data/CLS-LOC"
    holds: tuple[str, ...] = ("split", "label", "boxes")
    home: Path | None = None

    def detect(self, folder: Path) -> bool:
        """Whether there are folders called by WordNet ids, or files named as ILSVRC's val and test."""
        return wrapped(folder, fits)

    def read(self, folder: Path) -> Iterator[ImageRecord | Problem]:
        """Yield images by split, class and name; before each split what is missing of it.

        Raises SourceError where the folder is not of this layout or holds no image.
        """
        base = settle(folder, self, fits)
        prefix = "" if base == folder else f"{base.name}/"
        data = next((f"{place}/" for place in KAGGLE if (base / place).is_dir()), "")
        images = 0
        for item in distinct(self.splits(base, prefix, data)):
            images += isinstance(item, ImageRecord)
            yield item
        if not images:
            raise nothing_found(folder, self)

    def splits(self, base: Path, prefix: str, data: str) -> Iterator[ImageRecord | Problem]:
        """Yield the images of each split; a folder of classes without any is a split by itself, if called so."""
        held = [name for name in names_in(base / data)[0] if name.lower() in SPLITS]
        if not held:
            yield from read_split(base, prefix, "", SPLITS.get(base.name.lower()), Notes())
        for name in sorted(held, key=lambda name: list(SPLITS).index(name.lower())):
            notes = read_notes(base, data, SPLITS[name.lower()])
            yield from notes.problems
            yield from read_split(base / data / name, f"{prefix}{data}{name}/", name, SPLITS[name.lower()], notes)

    def meaning(self, folder: Path) -> Meaning:
        """There are no masks."""
        return Meaning()


def fits(folder: Path) -> bool:
    """Whether a folder is ImageNet's, or one of its splits."""
    if any((folder / place).is_dir() for place in KAGGLE):
        return True
    try:
        folders, _ = names_in(folder)
        parts = [folder / name for name in folders if name.lower() in SPLITS]
        return any(is_split(part) for part in parts or [folder])
    except SourceError:
        return False


def is_split(folder: Path) -> bool:
    """Whether there are folders of classes, or files named as ILSVRC's."""
    folders, files = names_in(folder)
    return any(CLASS.fullmatch(name) for name in folders) or any(FLAT.fullmatch(name) for name in files)


def read_split(folder: Path, at: str, name: str, split: str | None, notes: Notes) -> Iterator[ImageRecord | Problem]:
    """Yield the images of one split, ``at`` its path below the source: those of its classes, then those without folder."""
    splits = (f"imagenet/{name}",) if name else ()
    folders, files = names_in(folder)
    unlabelled: list[str] = []
    flat = sorted(stems_of(files, ENDINGS).items())
    places = [(f"{label}/", label) for label in folders if CLASS.fullmatch(label)]
    for place, label in places:
        stems = stems_of(names_in(folder / label)[1], ENDINGS)
        if not stems:
            yield Problem(at + label, "image", "the folder of this class holds no image: extract it again")
        yield from described(at + place, label, sorted(stems.items()), split, splits, notes)
    for item in described(at, None, flat, split, splits, notes):
        if isinstance(item, ImageRecord) and item.label is None:
            unlabelled.append(item.image_id)
        yield item
    if split in ("train", "val"):
        words = notes.lacking or "images have no label"
        yield from unmatched(at.rstrip("/") or ".", "annotation", unlabelled, len(flat), words)
        absent = notes.boxes.keys() - {stem for stem, _ in flat} if flat else set()
        words = f"images of {notes.path} are not here, extract them"
        yield from unmatched(at.rstrip("/") or ".", "image", absent, len(notes.boxes), words)


def described(
    at: str,
    label: str | None,
    found: list[tuple[str, list[str]]],
    split: str | None,
    splits: tuple[str, ...],
    notes: Notes,
) -> Iterator[ImageRecord | Problem]:
    """Yield the images of one folder, with label and boxes."""
    for stem, names in found:
        path = at + names[0]
        if not is_text(path):
            yield unreadable_name(path)
            continue
        image_id = stem if label is None or UNIQUE.match(stem) else f"{label}/{stem}"
        objects, wrong = notes.boxes_of(label, stem)
        yield from (Problem(f"{notes.path}/{stem}", "annotation", line, image_id) for line in wrong)
        named = label or notes.label_of(stem, objects)
        yield ImageRecord(image_id, path, split=split, splits=splits, label=named, objects=objects)
