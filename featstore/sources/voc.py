"""PASCAL VOC: JPEGImages, Annotations, ImageSets and masks of VOC2007, VOC2012 or both."""

import filecmp
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from featstore.errors import SourceError
from featstore.records import ImageRecord, ObjectRecord, Problem

from .base import require_folder
from .voc_xml import read_annotation

__all__ = ["VocSource"]

PART = re.compile(r"VOC\d{4}")
JPEG = (".jpg", ".jpeg")
LISTS = ("train", "val", "trainval", "test")
TOGETHER = frozenset({"train", "val", "trainval"})
NAMED = 5


@dataclass(frozen=True)
class Found:
    """One JPEG of one part."""

    part: Path
    path: Path


class VocSource:
    """A VOCdevkit, its parent, or one VOCyyyy folder."""

    layout = "voc"
    expects = "VOCdevkit/VOC2012/JPEGImages (give VOCdevkit, its parent, or one VOCyyyy folder)"
    home: Path | None = None

    def detect(self, folder: Path) -> bool:
        """Whether there is a part with JPEGImages."""
        return bool(parts(folder))

    def read(self, folder: Path) -> Iterator[ImageRecord | Problem]:
        """Yield every JPEG once, with splits, boxes and masks; see ``parts`` for the folders accepted.

        An image of the same name and bytes in two parts is one image with the lists of both; of other bytes, the two are
        told apart as ``VOC2007/name`` and ``VOC2012/name``. Raises SourceError where there is no part.
        """
        require_folder(folder)
        found = parts(folder)
        if not found:
            raise SourceError(f"{folder} is not of layout voc, which expects {self.expects}")
        images: dict[str, list[Found]] = {}
        for part in found:
            for path in sorted((part / "JPEGImages").iterdir()):
                if path.suffix.lower() in JPEG and not path.name.startswith("."):
                    images.setdefault(path.stem, []).append(Found(part, path))
        splits: dict[Path, dict[str, list[str]]] = {}
        for part in found:
            names = {stem for stem, places in images.items() if any(place.part == part for place in places)}
            splits[part] = {}
            yield from read_splits(folder, part, names, splits[part])
        for stem in sorted(images):
            for record, problems in merge(folder, stem, images[stem], splits):
                yield from problems
                yield record


def parts(folder: Path) -> list[Path]:
    """Return the VOCyyyy folders meant by ``folder``: itself, its children, or those of a VOCdevkit in it."""
    if (folder / "JPEGImages").is_dir():
        return [folder]
    for place in (folder, folder / "VOCdevkit"):
        if place.is_dir():
            inside = [p for p in sorted(place.iterdir()) if PART.fullmatch(p.name) and (p / "JPEGImages").is_dir()]
            if inside:
                return inside
    return []


def read_splits(folder: Path, part: Path, names: set[str], splits: dict[str, list[str]]) -> Iterator[Problem]:
    """Add every list that names an image to ``splits``; yield lists that are missing and names without a JPEG."""
    seen = False
    for kind in ("Main", "Segmentation"):
        have = {name for name in LISTS if (part / "ImageSets" / kind / f"{name}.txt").is_file()}
        seen |= bool(have)
        for name in sorted(TOGETHER - have) if have & TOGETHER else ():
            missing = (part / "ImageSets" / kind / f"{name}.txt").relative_to(folder).as_posix()
            yield Problem(missing, "split", f"the list is missing while {', '.join(sorted(have))} are there")
        for name in sorted(have):
            path = part / "ImageSets" / kind / f"{name}.txt"
            text = path.read_text(encoding="utf-8", errors="replace")
            members = [line.split()[0] for line in text.splitlines() if line.strip()]
            for member in members:
                splits.setdefault(member, []).append(f"{kind.lower()}/{name}")
            absent = [member for member in members if member not in names]
            if absent:
                few = ", ".join(absent[:NAMED]) + (" …" if len(absent) > NAMED else "")
                reason = f"{len(absent)} of {len(members)} images listed are not in JPEGImages: {few}"
                yield Problem(path.relative_to(folder).as_posix(), "split", reason)
    if not seen:
        place = (part / "ImageSets").relative_to(folder).as_posix()
        yield Problem(place, "split", "no train, val, trainval or test list in Main or Segmentation: split is NULL")


def merge(
    folder: Path, stem: str, places: list[Found], splits: dict[Path, dict[str, list[str]]]
) -> Iterator[tuple[ImageRecord, list[Problem]]]:
    """Yield the image of one name in one part, or of the same name in several."""
    first, *others = places
    same = [other for other in others if filecmp.cmp(first.path, other.path, shallow=False)]
    different = [other for other in others if other not in same]
    record, problems = describe(folder, first, splits[first.part])
    lists = {name for place in (first, *same) for name in splits[place.part].get(stem, ())}
    record = replace(record, splits=tuple(sorted(lists)), split=one_split(lists))
    if not different:
        yield record, problems
        return
    yield replace(record, image_id=f"{first.part.name}/{stem}"), problems
    for place in different:
        record, problems = describe(folder, place, splits[place.part])
        yield replace(record, image_id=f"{place.part.name}/{stem}"), problems


def describe(folder: Path, found: Found, splits: dict[str, list[str]]) -> tuple[ImageRecord, list[Problem]]:
    """Return the record of one JPEG with its annotation and masks."""
    stem = found.path.stem
    annotation = found.part / "Annotations" / f"{stem}.xml"
    objects: tuple[ObjectRecord, ...] = ()
    problems: list[Problem] = []
    if annotation.is_file():
        objects, wrong = read_annotation(annotation)
        name = annotation.relative_to(folder).as_posix()
        problems = [Problem(name, "annotation", reason, stem) for reason in wrong]
    masks = [found.part / kind / f"{stem}.png" for kind in ("SegmentationClass", "SegmentationObject")]
    semantic, instance = (path.relative_to(folder).as_posix() if path.is_file() else None for path in masks)
    lists = set(splits.get(stem, ()))
    record = ImageRecord(
        image_id=stem,
        path=found.path.relative_to(folder).as_posix(),
        part=found.part.name,
        split=one_split(lists),
        splits=tuple(sorted(lists)),
        mask_path=semantic,
        instance_path=instance,
        objects=objects,
    )
    return record, problems


def one_split(lists: set[str]) -> str | None:
    """Return train, val or test: by the main list, else by the segmentation list."""
    order = (f"{kind}/{name}" for kind in ("main", "segmentation") for name in ("train", "val", "test"))
    return next((entry.split("/")[1] for entry in order if entry in lists), None)
