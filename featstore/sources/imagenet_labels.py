"""What lies beside ImageNet's photographs: labels of the flat val, boxes; from tables, XML files or the development kit."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featstore.places import as_remote
from featstore.records import ObjectRecord, Problem

from .files import names_in, read_text
from .voc_xml import read_annotation

__all__ = ["Notes", "read_notes"]

SYNSET = re.compile(r"n\d{8}")
KIT = ("ILSVRC2012_devkit_t12/data", "devkit/data", "data", "")
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
COLUMNS = 5
ADVICE = (
    "put LOC_val_solution.csv, Annotations/CLS-LOC/val or the development kit (ILSVRC2012_devkit_t12) beside it, or sort "
    "val into folders of classes"
)

Boxes = tuple[ObjectRecord, ...]


@dataclass
class Notes:
    """Labels and boxes of one split, by stem; ``path`` names where they come from, ``lacking`` says what to do about labels.

    Boxes in ``boxes`` come from a table; otherwise ``xml`` is the folder of annotation files, ``known`` their names.
    """

    path: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    boxes: dict[str, Boxes] = field(default_factory=dict)
    xml: Path | None = None
    known: dict[str, frozenset[str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    lacking: str = ""

    def boxes_of(self, label: str | None, stem: str) -> tuple[Boxes, list[str]]:
        """Return the boxes of an image, and a line for each that cannot be read."""
        if self.xml is None:
            return self.boxes.get(stem, ()), []
        folder = self.xml if label is None else self.xml / label
        key = label or ""
        if key not in self.known:
            self.known[key] = frozenset(names_in(folder)[1])
        if f"{stem}.xml" not in self.known[key]:
            return (), []
        return read_annotation(folder / f"{stem}.xml")

    def label_of(self, stem: str, objects: Sequence[ObjectRecord]) -> str | None:
        """Return the class of an image that lies in no folder of a class: by a list, else that of its boxes."""
        if stem in self.labels:
            return self.labels[stem]
        return next((box.name for box in objects if SYNSET.fullmatch(box.name)), None)


def read_notes(base: Path, data: str, split: str) -> Notes:
    """Find the labels and boxes of a split; ``data`` is the place of the photographs below ``base`` with a closing slash."""
    name = f"LOC_{split}_solution.csv"
    for place in dict.fromkeys((base, base.parent) if data else (base,)):
        text = read_text(place / name) if (place / name).is_file() else None
        if text is not None:
            return read_table(name, text)
    xml = next((place for place in annotation_folders(base, data, split) if place.is_dir()), None)
    notes = Notes(f"Annotations/CLS-LOC/{split}" if xml else "", xml=xml)
    if split == "val" and xml is None:
        read_kit(base, notes)
    notes.lacking = f"images have no label, {ADVICE}" if split == "val" else "images lie in no folder of a class"
    return notes


def annotation_folders(base: Path, data: str, split: str) -> list[Path]:
    """Return where XML files of a split may be."""
    above = data.removesuffix("Data/CLS-LOC/")
    return [base / f"{above}Annotations/CLS-LOC" / split, base / "Annotations" / split, base / "bbox" / split]


def read_table(name: str, text: str) -> Notes:
    """Read Kaggle's table: a line an image, ``stem,class xmin ymin xmax ymax class xmin …``; labels and boxes."""
    notes = Notes(name)
    wrong = 0
    for line in text.splitlines()[1:]:
        stem, _, rest = line.strip().partition(",")
        words = rest.split()
        try:
            boxes = [box_of(words[at : at + COLUMNS]) for at in range(0, len(words), COLUMNS)]
        except ValueError:
            wrong += 1
            continue
        if stem and boxes:
            notes.boxes[stem] = tuple(boxes)
            notes.labels[stem] = boxes[0].name
    if wrong:
        reason = f"{wrong:,} lines are not of the form `image,class xmin ymin xmax ymax …` and left out: fetch it again"
        notes.problems.append(Problem(name, "annotation", reason))
    notes.lacking = f"images have no line in {name}"
    return notes


def box_of(words: list[str]) -> ObjectRecord:
    """Return one box of a table; raises ValueError where the words are none."""
    name, *edges = words
    xmin, ymin, xmax, ymax = map(float, edges)
    return ObjectRecord(name, xmin, ymin, xmax, ymax)


def read_kit(base: Path, notes: Notes) -> None:
    """Take val's labels from the development kit: a class number a line, in the order of images, and the table of classes."""
    for place in KIT:
        folder = base / place
        text = read_text(folder / TRUTH) if (folder / TRUTH).is_file() else None
        if text is None:
            continue
        try:
            numbered = classes_of(folder / META)
            named = [numbered[int(word)] for word in text.split()]
        except (OSError, ValueError, KeyError) as error:
            reason = f"{TRUTH} numbers the classes and {META}, which names them, {reason_of(error)}: {ADVICE}"
            notes.problems.append(Problem(f"{place}/{META}".lstrip("/"), "annotation", reason))
            return
        notes.path = f"{place}/{TRUTH}".lstrip("/")
        notes.labels = {f"ILSVRC2012_val_{number:08d}": name for number, name in enumerate(named, 1)}
        return


def reason_of(error: Exception) -> str:
    """Return why the table of classes cannot be had."""
    if isinstance(error, FileNotFoundError):
        return "is not there"
    return str(error) if isinstance(error, OSError) else "does not fit it"


def classes_of(path: Path) -> dict[int, str]:
    """Return the WordNet id of each ILSVRC2012 class number; raises OSError where the file or scipy is missing."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise OSError("needs scipy to be read (pip install scipy)") from error
    if as_remote(path) is not None:
        raise OSError("cannot be read from a URL")
    if not path.is_file():
        raise FileNotFoundError(path)
    rows: Any = loadmat(path, squeeze_me=True, struct_as_record=False)["synsets"]
    return {int(row.ILSVRC2012_ID): str(row.WNID) for row in rows}
