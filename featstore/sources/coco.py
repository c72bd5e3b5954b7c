"""MS COCO and sets in its format: image folders, annotations/instances_*.json, COCO-Stuff's and panoptic masks."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from featstore.errors import DecodeError, SourceError
from featstore.panoptic import json_beside, segments_of
from featstore.records import ImageRecord, Meaning, Problem

from .base import is_text, nothing_found, unreadable_name
from .coco_json import Instances, read_instances
from .coco_names import STUFF_AND_THINGS, UNLABELLED
from .files import PNG, by_stem, names_in, unmatched
from .folder import image_paths
from .levels import settle, wrapped

__all__ = ["CocoSource"]

RELEASE = re.compile(r"(train|val|test|unlabeled)20\d\d")
JSON = re.compile(r"instances_(.+)\.json")
SPLIT = re.compile(r"(train|val|test)")
STUFF = ("stuffthingmaps", "stuffthingmaps_trainval2017", "annotations/stuffthingmaps", "annotations")
PANOPTIC = ("annotations/panoptic_", "panoptic_", "annotations/panoptic/panoptic_")


@dataclass(frozen=True)
class Part:
    """One folder of images: its name (train2017), its place below the source, its images' paths below that place, its masks."""

    name: str
    at: str
    paths: list[str]
    stuff: str
    panoptic: str


class CocoSource:
    """Images are called by their file names without ending (below the part where two parts share one).

    Boxes are edges [pixels], xmin + width and ymin + height; those of crowds (``iscrowd``) are ``difficult``. Masks are those
    of COCO-Stuff where these are there, else the panoptic ones, which are instances in either case.
    """

    layout = "coco"
    expects = "train2017, val2017 … (or images/train2017 …) and annotations/instances_train2017.json …"
    holds: tuple[str, ...] = ("split", "boxes", "masks", "instances")
    home: Path | None = None

    def detect(self, folder: Path) -> bool:
        """Whether there are folders called as COCO's or instances_*.json."""
        return wrapped(folder, fits)

    def read(self, folder: Path) -> Iterator[ImageRecord | Problem]:
        """Yield images by part and name, before them what is wrong with the part's annotations.

        Raises SourceError where the folder is not of this layout or holds no image.
        """
        base = settle(folder, self, fits)
        parts = parts_of(base, "" if base == folder else f"{base.name}/")
        shared = Counter(stem_of(path) for part in parts for path in part.paths)
        twice = {stem for stem, count in shared.items() if count > 1}
        stuff = any(part.stuff for part in parts)
        for part in parts:
            yield from read_part(folder, base, part, twice, panoptic=not stuff and with_json(folder, part))
        if not shared:
            raise nothing_found(folder, self)

    def meaning(self, folder: Path) -> Meaning:
        """Return COCO-Stuff's names: label n is category n + 1. Labels of panoptic pictures are categories, 0 for none."""
        base = settle(folder, self, fits)
        parts = parts_of(base, "" if base == folder else f"{base.name}/")
        told = next((part for part in parts if with_json(folder, part)), None)
        if told is None or any(part.stuff for part in parts):
            return Meaning(STUFF_AND_THINGS, (UNLABELLED,))
        try:
            return Meaning(segments_of(folder / told.panoptic).classes, (0,), "panoptic")
        except DecodeError as error:
            raise SourceError(str(error)) from error


def fits(folder: Path) -> bool:
    """Whether a folder is COCO's."""
    try:
        folders = [*names_in(folder)[0], *names_in(folder / "images")[0]]
        return any(map(RELEASE.fullmatch, folders)) or bool(instance_files(folder))
    except SourceError:
        return False


def instance_files(folder: Path) -> dict[str, str]:
    """Return the files of instances by the name of their part."""
    found = (JSON.fullmatch(name) for name in names_in(folder / "annotations")[1])
    return {match[1]: match[0] for match in found if match}


def parts_of(base: Path, prefix: str) -> list[Part]:
    """Return the folders of images: COCO's, and those that files of instances name; else `images` for one such file alone."""
    told = instance_files(base)
    places: dict[str, str] = {}
    for top in ("", "images/"):
        for name in names_in(base / top)[0]:
            if RELEASE.fullmatch(name) or (name in told and name != "annotations"):
                places.setdefault(name, f"{top}{name}")
    lost = [name for name in told if name not in places]
    if lost == list(told) and len(told) == 1 and (base / "images").is_dir():
        places[lost[0]] = "images"
    for name in lost:
        places.setdefault(name, name)
    return [list_part(base, prefix, name, at) for name, at in sorted(places.items())]


def list_part(base: Path, prefix: str, name: str, at: str) -> Part:
    """List one folder of images, and find its masks."""
    closed: list[Problem] = []
    paths = sorted(image_paths(base / at, closed)) if (base / at).is_dir() else []
    stuff = next((f"{top}/{name}" for top in STUFF if (base / top / name).is_dir()), "")
    panoptic = next((top + name for top in PANOPTIC if (base / (top + name)).is_dir()), "")
    below = (f"{prefix}{place}" if place else "" for place in (at, stuff, panoptic))
    return Part(name, *(next(below), paths), *below)


def stem_of(path: str) -> str:
    """Return an image's path without its ending."""
    return path.rpartition(".")[0]


def with_json(folder: Path, part: Part) -> bool:
    """Whether a part has panoptic pictures whose labels are known."""
    return bool(part.panoptic) and json_beside(folder / part.panoptic) is not None


def read_part(folder: Path, base: Path, part: Part, twice: set[str], panoptic: bool) -> Iterator[ImageRecord | Problem]:
    """Yield the images of one part; ``twice`` are names that several parts or endings share.

    ``panoptic`` says that its panoptic pictures are its masks.
    """
    file = instance_files(base).get(part.name)
    told = read_instances(base / "annotations" / file) if file else Instances()
    yield from (Problem(f"annotations/{file}", "annotation", line) for line in told.wrong)
    numbers = told.numbers_of(part.paths)
    held = set(numbers.values())
    absent = [name for name, number in told.names.items() if number not in held]
    words = f"images of {file} are not here: fetch or extract them"
    yield from unmatched(part.at, "image", absent, len(told.names), words)
    stuff = by_stem(folder / part.stuff, PNG) if part.stuff else {}
    segments = by_stem(folder / part.panoptic, PNG) if part.panoptic else {}
    for where, masks in ((part.stuff, stuff), (part.panoptic, segments)):
        bare = {stem_of(path) for path in part.paths} - masks.keys() if masks else set()
        yield from unmatched(where, "mask", bare, len(part.paths), f"images of {part.at} have no mask here")
    split = SPLIT.match(part.name)
    taken: set[str] = set()
    for path in part.paths:
        stem = stem_of(path)
        if not is_text(path):
            yield unreadable_name(f"{part.at}/{path}")
            continue
        image_id = f"{part.name}/{stem}" if stem in twice else stem
        if image_id in taken:
            yield Problem(
                f"{part.at}/{path}", "image", "another image has this name with another ending: rename one", image_id
            )
            continue
        taken.add(image_id)
        shown = f"{part.panoptic}/{segments[stem][0]}" if stem in segments else None
        yield ImageRecord(
            image_id,
            f"{part.at}/{path}",
            split=split[1] if split else None,
            splits=(f"coco/{part.name}",),
            mask_path=f"{part.stuff}/{stuff[stem][0]}" if stem in stuff else shown if panoptic else None,
            instance_path=shown,
            objects=told.objects_of(numbers.get(path)),
        )
