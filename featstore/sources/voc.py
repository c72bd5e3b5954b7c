"""PASCAL VOC: JPEGImages, Annotations, ImageSets and masks of VOC2007, VOC2012 or both."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from featstore.errors import SourceError
from featstore.records import ImageRecord, Meaning, ObjectRecord, Problem

from .base import is_text, nothing_found, require_folder, unreadable_name
from .files import JPEG, PNG, by_stem, unmatched
from .voc_lists import read_path_lists
from .voc_splits import SplitLists, one_split, read_splits
from .voc_xml import read_annotation

__all__ = ["VocSource"]

PART = re.compile(r"VOC\d{4}")
CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
VOID = 255

AUGMENTED = ("SegmentationClassAug", "SegmentationClass_aug")
"""Folders of the masks that SBD adds; where VOC has a mask of its own, that one counts."""

AUGMENTED_LISTS = frozenset(f"segmentation/{name}" for name in ("trainaug", "train_aug"))


@dataclass(frozen=True)
class Part:
    """One VOCyyyy folder, listed once: asking the disk about every file of 17,000 images would take far longer.

    ``prefix`` is its POSIX path below the source with a closing slash, or empty. Folders are file names by stem, masks
    paths below the part.
    """

    folder: Path
    name: str
    prefix: str
    jpegs: dict[str, list[str]]
    annotations: dict[str, list[str]]
    semantic: dict[str, str]
    instance: dict[str, str]
    lists: SplitLists


@dataclass(frozen=True)
class Found:
    """One JPEG of one part."""

    part: Part
    stem: str
    name: str

    @property
    def path(self) -> str:
        """POSIX path below the source."""
        return f"{self.part.prefix}JPEGImages/{self.name}"

    def read(self) -> bytes | None:
        """Return the file's bytes, None where it cannot be read."""
        try:
            return (self.part.folder / "JPEGImages" / self.name).read_bytes()
        except OSError:
            return None


class VocSource:
    """A VOCdevkit, its parent, or one VOCyyyy folder."""

    layout = "voc"
    expects = "VOCdevkit/VOC2012/JPEGImages (give VOCdevkit, its parent, or one VOCyyyy folder)"
    holds: tuple[str, ...] = ("split", "boxes", "masks", "instances")
    home: Path | None = None

    def detect(self, folder: Path) -> bool:
        """Whether there is a part with JPEGImages."""
        return bool(part_folders(folder))

    def read(self, folder: Path) -> Iterator[ImageRecord | Problem]:
        """Yield the problems of the split lists, then every JPEG by sorted name; see ``part_folders`` for what is accepted.

        An image of the same name and bytes in two parts is one image with the lists of both; of other bytes, the two are
        told apart as ``VOC2007/name`` and ``VOC2012/name``. Raises SourceError where there is no part or no JPEG.
        """
        require_folder(folder)
        found = part_folders(folder)
        if not found:
            sbd = "; these are SBD's own files: convert dataset/cls/*.mat to PNG" if is_sbd(folder) else ""
            raise SourceError(f"{folder} is not of layout voc, which expects {self.expects}{sbd}")
        parts = [list_part(folder, part) for part in found]
        listed, problems = read_path_lists(folder, {part.name: (part.folder, part.jpegs.keys()) for part in parts})
        images: dict[str, list[Found]] = {}
        for part in parts:
            for stem, names in part.jpegs.items():
                images.setdefault(stem, []).extend(Found(part, stem, name) for name in names)
        if not images:
            raise nothing_found(folder, self)
        for part in parts:
            yield from part.lists.problems
            for stem, named in listed[part.name].items():
                part.lists.named.setdefault(stem, set()).update(named)
        yield from problems
        for stem in sorted(images):
            yield from tell_apart(images[stem])

    def meaning(self, folder: Path) -> Meaning:
        """Masks have the background, twenty classes, and 255 where nothing counts (VOC2012 development kit, section 3.5)."""
        return Meaning(CLASSES, (VOID,))


def is_sbd(folder: Path) -> bool:
    """Whether a folder is SBD as its authors released it, with masks as MATLAB files."""
    return any((folder / place / "cls").is_dir() for place in ("", "dataset", "benchmark_RELEASE/dataset"))


def part_folders(folder: Path) -> list[Path]:
    """Return the VOCyyyy folders meant by ``folder``: itself, its children, or those of a VOCdevkit in it."""
    if (folder / "JPEGImages").is_dir():
        return [folder]
    for place in (folder, folder / "VOCdevkit"):
        if place.is_dir():
            inside = [p for p in sorted(place.iterdir()) if PART.fullmatch(p.name) and (p / "JPEGImages").is_dir()]
            if inside:
                return inside
    return []


def list_part(folder: Path, part: Path) -> Part:
    """List the folders of one part and read its split lists."""
    below = part.relative_to(folder).as_posix()
    prefix = "" if below == "." else f"{below}/"
    jpegs = by_stem(part / "JPEGImages", JPEG)
    annotations = by_stem(part / "Annotations", (".xml",))
    semantic, instance = masks_in(part, "SegmentationClass", *AUGMENTED), masks_in(part, "SegmentationObject")
    lists = read_splits(part, prefix, jpegs.keys())
    wanted = [stem for stem, named in lists.named.items() if AUGMENTED_LISTS & named and stem in jpegs]
    bare = [stem for stem in wanted if stem not in semantic]
    words = f"images of the augmented lists have no mask: put SBD's, as PNG, into {part.name}/{AUGMENTED[0]}"
    lists.problems.extend(unmatched(f"{prefix}{AUGMENTED[0]}", "mask", bare, len(wanted), words))
    return Part(part, part.absolute().name, prefix, jpegs, annotations, semantic, instance, lists)


def masks_in(part: Path, *folders: str) -> dict[str, str]:
    """Return the masks in some folders of a part by stem, as paths below the part; the first folder that has one counts."""
    found: dict[str, str] = {}
    for name in folders:
        for stem, names in by_stem(part / name, PNG).items():
            found.setdefault(stem, f"{name}/{names[0]}")
    return found


def tell_apart(places: list[Found]) -> Iterator[ImageRecord | Problem]:
    """Yield the images that share one name: one for all files of the same bytes."""
    stem = places[0].stem
    if not is_text(stem):
        yield from (unreadable_name(place.path) for place in places)
        return
    groups = same_bytes(places)
    taken: set[str] = set()
    qualified = len({group[0].part.name for group in groups}) > 1
    for group in groups:
        image_id = stem if not qualified else f"{group[0].part.name}/{stem}"
        if image_id in taken:
            reason = "another image of the same part has this name with another ending: rename one"
            yield Problem(group[0].path, "image", reason, image_id)
            continue
        taken.add(image_id)
        yield from describe(image_id, group)


def same_bytes(places: list[Found]) -> list[list[Found]]:
    """Group files by content; what cannot be read is the same as nothing else."""
    if len(places) == 1:
        return [places]
    groups: list[tuple[bytes | None, list[Found]]] = []
    for place in places:
        data = place.read()
        fitting = next((group for held, group in groups if data is not None and held == data), None)
        if fitting is None:
            groups.append((data, [place]))
        else:
            fitting.append(place)
    return [group for _, group in groups]


def describe(image_id: str, group: list[Found]) -> Iterator[ImageRecord | Problem]:
    """Yield one image, before it what is wrong with its annotation.

    The first part gives path, boxes and masks; a later one the boxes or masks that the earlier ones lack.
    """
    first, stem = group[0], group[0].stem
    objects: tuple[ObjectRecord, ...] = ()
    noted = next((place.part for place in group if stem in place.part.annotations), None)
    if noted is not None:
        name = noted.annotations[stem][0]
        objects, wrong = read_annotation(noted.folder / "Annotations" / name)
        yield from (Problem(f"{noted.prefix}Annotations/{name}", "annotation", reason, image_id) for reason in wrong)
    parts = [place.part for place in group]
    semantic = (part.prefix + part.semantic[stem] for part in parts if stem in part.semantic)
    instance = (part.prefix + part.instance[stem] for part in parts if stem in part.instance)
    lists = {name for place in group for name in place.part.lists.named.get(stem, ())}
    yield ImageRecord(
        image_id=image_id,
        path=first.path,
        part=first.part.name,
        split=one_split(lists),
        splits=tuple(sorted(lists)),
        mask_path=next(semantic, None),
        instance_path=next(instance, None),
        objects=objects,
    )
