"""Pairs of image and depth map of NYU Depth v2, in the folders in which they are passed around."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from featstore.errors import DecodeError
from featstore.images import probe
from featstore.records import ImageRecord, Problem

from .base import is_text, unreadable_name
from .files import names_in, read_text, unmatched
from .shards import split_named
from .tables import read_csv_rows

__all__ = ["Pairs", "flat_pairs", "kaggle_pairs", "read_pairs", "sync_pairs", "unit_of"]

KAGGLE = {"nyu2_train": "train", "nyu2_test": "test"}
SYNC = {"sync": "train", "official_splits/train": "train", "official_splits/test": "test"}
SCENES = (re.compile(r"(\d+)\.jpe?g"), re.compile(r"(\d+)\.png"))
TESTED = (re.compile(r"(\d+)_colors\.(?:png|jpe?g)"), re.compile(r"(\d+)_depth\.png"))
SYNCED = (re.compile(r"rgb_(\d+)\.(?:jpe?g|png)"), re.compile(r"(?:sync_)?depth_(\d+)\.png"))
FLAT = (re.compile(r"image_(\d+)\.(?:png|jpe?g)"), re.compile(r"depth_(\d+)\.png"))
KIND = re.compile(r"(.*?)(?:_\d+[a-z]?)?(?:_out)?")
MILLIMETRE, EIGHT_BIT = 0.001, 10 / 255
Patterns = tuple[re.Pattern[str], re.Pattern[str]]


@dataclass(frozen=True)
class Pairs:
    """One folder of pairs: its name, the pattern of images and depth maps, whether it is of scenes; lists that name pairs.

    ``name`` is the folder's path below the data set's, empty for itself.
    """

    folder: Path
    name: str
    split: str | None
    patterns: Patterns
    scenes: bool
    lists: dict[str, list[str]] = field(default_factory=dict)


def kaggle_pairs(folder: Path) -> list[Pairs]:
    """Return nyu2_train and nyu2_test with the CSV files that name their pairs; one of them may be the folder itself."""
    inside, files = names_in(folder)
    own = {"": folder.name} if folder.name in KAGGLE else {name: name for name in KAGGLE if name in inside}
    found = []
    for name, called in own.items():
        rows = read_csv_rows(read_text(folder / f"{called}.csv") or "") if f"{called}.csv" in files else []
        lists = {f"{called}.csv": [row[0].partition(f"{called}/")[2] for row in rows]} if rows else {}
        scenes = called == "nyu2_train"
        found.append(
            Pairs(folder / name if name else folder, name, KAGGLE[called], SCENES if scenes else TESTED, scenes, lists)
        )
    return found


def sync_pairs(folder: Path) -> list[Pairs]:
    """Return sync and official_splits with the text files that name pairs (image, depth map and focal length a line)."""
    inside, files = names_in(folder)
    own = {"": SYNC["sync"]} if folder.name == "sync" else SYNC
    if "" not in own and not {"sync", "official_splits"} & set(inside):
        return []
    lists: dict[str, list[str]] = {}
    for file in files:
        lines = (
            [line.split() for line in (read_text(folder / file) or "").splitlines()] if file.endswith(".txt") else []
        )
        named = [words[0].lstrip("/") for words in lines if len(words) >= 2 and "rgb_" in words[0]]
        if named:
            lists[file] = named
    found = []
    for name, split in own.items():
        if names_in(folder / name if name else folder)[0]:
            mine = {file: below for file, below in lists.items() if split_named(file) in (split, None)}
            found.append(Pairs(folder / name if name else folder, name, split, SYNCED, True, mine))
    return found


def flat_pairs(folder: Path) -> list[Pairs]:
    """Return the folder itself where image_0.png lies beside depth_0.png, with CSV files that name the pairs."""
    files = names_in(folder)[1]
    if not all(any(pattern.fullmatch(name) for name in files) for pattern in FLAT):
        return []
    lists = {}
    for file in files:
        if file.endswith(".csv"):
            rows = [row[0] for row in read_csv_rows(read_text(folder / file) or "")]
            lists[file] = [name for name in rows if FLAT[0].fullmatch(name)]
    split = next((split for file in lists if (split := split_named(file))), None)
    return [Pairs(folder, "", split, FLAT, False, {file: rows for file, rows in lists.items() if rows})]


def read_pairs(pairs: Pairs, prefix: str) -> Iterator[ImageRecord | Problem]:
    """Yield the images of one folder, before them what is missing; ``prefix`` is the data set's path below the source."""
    at = f"{prefix}{pairs.name}/" if pairs.name else prefix
    shown = at.rstrip("/") or pairs.folder.name
    listed = {name: set(rows) for name, rows in pairs.lists.items()}
    records: list[ImageRecord | Problem] = []
    images = bare = 0
    alone: list[str] = []
    for scene in names_in(pairs.folder)[0] if pairs.scenes else [""]:
        photos, depths = (numbered(pairs.folder / scene if scene else pairs.folder, p) for p in pairs.patterns)
        below = f"{scene}/" if scene else ""
        alone += [below + depths[number] for number in depths.keys() - photos.keys()]
        for number in sorted(photos, key=lambda digits: (int(digits), digits)):
            images += 1
            bare += number not in depths
            name = below + photos[number]
            lists = [file for file, rows in listed.items() if name in rows]
            records.append(record(pairs, at, scene, name, below + depths[number] if number in depths else None, lists))
    found = {item.path[len(at) :] for item in records if isinstance(item, ImageRecord)}
    for file, rows in listed.items():
        yield from unmatched(
            prefix + file, "split", rows - found, len(rows), f"images that it names are not in {shown}"
        )
    if bare:
        yield Problem(shown, "annotation", f"{bare:,} of {images:,} images have no depth map here: extract it again")
    yield from unmatched(shown, "image", alone, images + len(alone), "depth maps have no image here, extract it again")
    yield from records


def record(pairs: Pairs, at: str, scene: str, name: str, depth: str | None, lists: list[str]) -> ImageRecord | Problem:
    """Return one image's record."""
    if not is_text(at + name):
        return unreadable_name(at + name)
    kind = KIND.fullmatch(scene)
    number = name.rpartition(".")[0].replace("_colors", "")
    return ImageRecord(
        at + number,
        at + name,
        part=scene or None,
        split=pairs.split,
        splits=tuple(sorted(f"nyu/{file.rpartition('.')[0]}" for file in lists)),
        label=(kind[1] or None) if kind else None,
        depth_path=at + depth if depth else None,
    )


def numbered(folder: Path, pattern: re.Pattern[str]) -> dict[str, str]:
    """Return the files of a folder that match, by number."""
    matches = ((pattern.fullmatch(name), name) for name in names_in(folder)[1])
    return {match[1]: name for match, name in matches if match}


def unit_of(pairs: Pairs) -> float | None:
    """Return the length of a depth map's unit [m], by the bits of the first that can be read; None where none can."""
    for scene in names_in(pairs.folder)[0] if pairs.scenes else [""]:
        place = pairs.folder / scene if scene else pairs.folder
        for name in numbered(place, pairs.patterns[1]).values():
            try:
                return EIGHT_BIT if probe((place / name).read_bytes()).mode == "L" else MILLIMETRE
            except (DecodeError, OSError):
                continue
    return None
