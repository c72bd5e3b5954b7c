"""ADE20K's full release of 2021: scenes in folders, colour-coded masks, a JSON note an image."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from featstore.records import ImageRecord, Meaning, ObjectRecord, Problem

from .base import is_text, unreadable_name
from .files import JPEG, names_in, read_text, stems_of, unmatched

__all__ = ["FullRelease"]

SPLITS = {"training": "train", "validation": "val"}
UNLABELLED = 0


class FullRelease:
    """ADE20K_2021_17_01. Classes are numbered by the notes of images: the release's list is a pickle, which could run code."""

    def __init__(self) -> None:
        self.classes: dict[int, str] = {}

    @staticmethod
    def fits(folder: Path) -> bool:
        """Whether a folder is that of the release."""
        return any((folder / "images" / "ADE" / name).is_dir() for name in SPLITS)

    def read(self, folder: Path, prefix: str) -> Iterator[ImageRecord | Problem]:
        """Yield images by split, scene and name; ``prefix`` is the release's path below the source."""
        self.classes = {}
        for name, split in SPLITS.items():
            top = f"{prefix}images/ADE/{name}"
            bare: list[str] = []
            unread: list[str] = []
            count = 0
            for place, stem, file, beside in images_below(folder / "images" / "ADE" / name, ""):
                count += 1
                if not is_text(place + file):
                    yield unreadable_name(f"{top}/{place}{file}")
                    continue
                objects: tuple[ObjectRecord, ...] = ()
                if f"{stem}.json" in beside:
                    note = folder / "images" / "ADE" / name / place / f"{stem}.json"
                    objects, wrong = self.read_note(note)
                    yield from (Problem(f"{top}/{place}{stem}.json", "annotation", line, stem) for line in wrong)
                else:
                    unread.append(stem)
                mask = f"{top}/{place}{stem}_seg.png" if f"{stem}_seg.png" in beside else None
                if mask is None:
                    bare.append(stem)
                group, _, scene = place.rstrip("/").partition("/")
                yield ImageRecord(
                    *(stem, f"{top}/{place}{file}", group or None, split, (f"ade20k/{name}",), scene or group or None),
                    mask_path=mask,
                    instance_path=mask,
                    objects=objects,
                )
            yield from unmatched(top, "mask", bare, count, "images have no *_seg.png beside them, extract it again")
            yield from unmatched(
                top, "annotation", unread, count, "images have no *.json beside them, extract it again"
            )

    def read_note(self, path: Path) -> tuple[tuple[ObjectRecord, ...], list[str]]:
        """Return the boxes of an image's note that can be read, and a line for what cannot; remember its class numbers."""
        try:
            found = json.loads(read_text(path) or "")["annotation"]["object"]
            notes: list[dict[str, Any]] = found if isinstance(found, list) else [found]
            whole = [note for note in notes if not int(note["parts"]["part_level"])]
        except (ValueError, KeyError, TypeError):
            return (), ["broken JSON, its boxes are left out: extract it again"]
        objects, wrong = [], []
        for note in whole:
            try:
                self.classes.setdefault(int(note["name_ndx"]), str(note["name"]))
                objects.append(box_of(note))
            except (KeyError, TypeError, ValueError):
                wrong.append(f"object {note.get('id')} is left out: it has no name or no polygon")
        return tuple(objects), wrong

    def meaning(self) -> Meaning:
        """Return the classes that notes have named, a text a label, empty where no image shows it."""
        last = max(self.classes, default=0)
        names = ("unlabelled", *(self.classes.get(number, "") for number in range(1, last + 1)))
        return Meaning(names if last else None, (UNLABELLED,), "ade20k")


def images_below(folder: Path, place: str) -> Iterator[tuple[str, str, str, frozenset[str]]]:
    """Yield place (below the split, with a closing slash), stem and name of every photograph, and all names beside it.

    Folders called as an image hold the masks of its instances and are not looked into.
    """
    folders, files = names_in(folder)
    beside = frozenset(files)
    photographs = stems_of(files, JPEG)
    for stem, named in sorted(photographs.items()):
        yield place, stem, named[0], beside
    for name in folders:
        if name not in photographs:
            yield from images_below(folder / name, f"{place}{name}/")


def box_of(note: dict[str, Any]) -> ObjectRecord:
    """Return the bounds of an object's polygon [pixels]; its corners lie on the edges of the pixels that it covers."""
    x, y = (note["polygon"][axis] for axis in "xy")
    x, y = (axis if isinstance(axis, list) else [axis] for axis in (x, y))
    left, top, right, bottom = (float(edge) for edge in (min(x), min(y), max(x), max(y)))
    cut, hidden = note.get("crop") == "1", note.get("occluded") == "yes"
    return ObjectRecord(str(note["name"]), left, top, right, bottom, truncated=cut, occluded=hidden)
