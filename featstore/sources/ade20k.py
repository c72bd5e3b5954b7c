"""ADE20K: the scene parsing challenge of 2016 (150 classes), or the full release of 2021 (3,688 classes and more)."""

from collections.abc import Iterator
from pathlib import Path

from featstore.records import ImageRecord, Meaning, Problem

from .ade20k_full import FullRelease
from .base import is_text, nothing_found, unreadable_name
from .files import JPEG, PNG, by_stem, distinct, read_text, unmatched
from .levels import settle, wrapped

__all__ = ["Ade20kSource"]

SPLITS = {"training": "train", "validation": "val", "testing": "test"}
TELLING = ("objectInfo150.txt", "sceneCategories.txt")
OTHER = 0
"""The challenge's label of whatever is none of its classes; it counts for nothing in its evaluation."""


class Ade20kSource:
    """The folder of either release, or the one above it.

    Labels are scenes. In the full release ``part`` is the group of scenes (urban, nature …), and boxes are the bounds of the
    objects' polygons, parts of objects left out as they are in the masks.
    """

    layout = "ade20k"
    expects = (
        "ADEChallengeData2016 (images/training, annotations/training …) or ADE20K_2021_17_01 (images/ADE/training …)"
    )
    holds: tuple[str, ...] = ("split", "label", "boxes", "masks", "instances")
    home: Path | None = None

    def __init__(self) -> None:
        self.full = FullRelease()

    def detect(self, folder: Path) -> bool:
        """Whether it is the folder of a release, or the only thing in it is."""
        return wrapped(folder, fits)

    def read(self, folder: Path) -> Iterator[ImageRecord | Problem]:
        """Yield images by split and name, before them what is missing.

        Raises SourceError where neither release is there or it has no image.
        """
        base = settle(folder, self, fits)
        prefix = "" if base == folder else f"{base.name}/"
        found = self.full.read(base, prefix) if self.full.fits(base) else read_challenge(base, prefix)
        empty = True
        for item in distinct(found):
            empty = empty and not isinstance(item, ImageRecord)
            yield item
        if empty:
            raise nothing_found(folder, self)

    def meaning(self, folder: Path) -> Meaning:
        """Return the classes: of the challenge from objectInfo150.txt, of the full release from the notes that were read."""
        base = settle(folder, self, fits)
        if self.full.fits(base):
            return self.full.meaning()
        return Meaning(class_names(base), (OTHER,))


def fits(folder: Path) -> bool:
    """Whether a folder is that of a release."""
    return FullRelease.fits(folder) or is_challenge(folder)


def is_challenge(folder: Path) -> bool:
    """Whether a folder is that of the challenge, whole or half extracted."""
    told = (folder / "annotations").is_dir() or any((folder / name).is_file() for name in TELLING)
    return told and any((folder / top / name).is_dir() for top in ("images", "annotations") for name in SPLITS)


def class_names(folder: Path) -> tuple[str, ...] | None:
    """Return the first synonym of each class, from label 0 on, None where the list is not there or not as it should be."""
    text = read_text(folder / "objectInfo150.txt")
    rows = [line.split("\t") for line in (text or "").splitlines()[1:] if line.strip()]
    names = {int(row[0]): row[-1].split(",")[0].strip() for row in rows if row[0].strip().isdigit()}
    if sorted(names) != list(range(1, len(names) + 1)) or not names:
        return None
    return ("other", *(names[number] for number in sorted(names)))


def read_challenge(folder: Path, prefix: str) -> Iterator[ImageRecord | Problem]:
    """Yield the images of ADEChallengeData2016; ``prefix`` is its path below the source, with a closing slash."""
    lines = (line.split() for line in (read_text(folder / "sceneCategories.txt") or "").splitlines())
    scenes = {words[0]: " ".join(words[1:]) for words in lines if len(words) > 1}
    for name, split in SPLITS.items():
        images = by_stem(folder / "images" / name, JPEG)
        masks = by_stem(folder / "annotations" / name, PNG)
        at, beside = f"{prefix}images/{name}", f"{prefix}annotations/{name}"
        lost = masks.keys() - images.keys()
        yield from unmatched(at, "image", lost, len(masks), f"masks in {beside} have no image here, extract it again")
        if name != "testing":
            bare = images.keys() - masks.keys()
            yield from unmatched(
                beside, "mask", bare, len(images), f"images in {at} have no mask here, extract it again"
            )
        for stem in sorted(images):
            if not is_text(stem):
                yield unreadable_name(f"{at}/{images[stem][0]}")
                continue
            mask = f"{beside}/{masks[stem][0]}" if stem in masks else None
            splits = (f"ade20k/{name}",)
            yield ImageRecord(
                stem, f"{at}/{images[stem][0]}", split=split, splits=splits, label=scenes.get(stem), mask_path=mask
            )
