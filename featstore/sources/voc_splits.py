"""The lists under one VOC part's ImageSets: which image belongs to which split."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from featstore.records import Problem

from .base import is_text

__all__ = ["SplitLists", "one_split", "read_splits"]

KINDS = ("Main", "Segmentation")
LISTS = ("train", "val", "trainval", "test")
AUGMENTED = ("trainaug", "train_aug", "trainvalaug", "trainval_aug", "aug")
"""Lists of Segmentation that people add with SBD's masks."""

TOGETHER = frozenset({"train", "val", "trainval"})
"""Lists that every VOC release gives together; test came as a release of its own."""

TOLD_ONE_BY_ONE = 20
NAMED = 5


@dataclass(frozen=True)
class SplitLists:
    """``named``: by image, the lists that name it, such as ``main/train``; ``problems``: what is wrong with the lists."""

    named: dict[str, set[str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def read_splits(part: Path, prefix: str, stems: Collection[str]) -> SplitLists:
    """Read the plain lists of one part; those of a class, such as ``dog_train.txt``, are no splits.

    ``prefix`` is the part's POSIX path below the source, with its closing slash; ``stems`` names the part's JPEGs. Lists
    that are missing or unreadable and names without a JPEG are problems.
    """
    found = SplitLists()
    seen = False
    for kind in KINDS:
        names = (*LISTS, *AUGMENTED) if kind == "Segmentation" else LISTS
        have = sorted(name for name in names if (part / "ImageSets" / kind / f"{name}.txt").is_file())
        seen |= bool(have)
        for name in sorted(TOGETHER.difference(have)) if TOGETHER.intersection(have) else ():
            reason = f"the list is missing while {', '.join(have)} are there: fetch it, or its split stays empty"
            found.problems.append(Problem(f"{prefix}ImageSets/{kind}/{name}.txt", "split", reason))
        for name in have:
            path = f"{prefix}ImageSets/{kind}/{name}.txt"
            try:
                members = read_list(part / "ImageSets" / kind / f"{name}.txt", stems)
            except OSError as error:
                found.problems.append(Problem(path, "split", f"the list cannot be read: {error.strerror}"))
                continue
            for member in members:
                found.named.setdefault(member, set()).add(f"{kind.lower()}/{name}")
            found.problems.extend(absent_images(path, members, stems))
    if not seen:
        reason = "no train, val, trainval or test list in Main or Segmentation: split is NULL"
        found.problems.append(Problem(f"{prefix}ImageSets", "split", reason))
    return found


def read_list(path: Path, stems: Collection[str]) -> list[str]:
    """Return the images that a list names, each once, without what follows in further columns."""
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    lines = (line.strip() for line in text.split("\n"))
    return list(dict.fromkeys(line if line in stems else name_in(line.split()[0]) for line in lines if line))


def name_in(word: str) -> str:
    """Return the image that a word names, which may be its path: ``/JPEGImages/2007_000032.jpg``."""
    return word.rpartition("/")[2].rpartition(".")[0] if "JPEGImages/" in word else word


def absent_images(path: str, members: list[str], stems: Collection[str]) -> list[Problem]:
    """Return a problem for each name without a JPEG, or a single one for the list where they are many."""
    absent = [member if is_text(member) else ascii(member) for member in members if member not in stems]
    if len(absent) > TOLD_ONE_BY_ONE:
        few = ", ".join(absent[:NAMED])
        reason = f"{len(absent)} of {len(members)} images listed are not in JPEGImages: {few} … (fetch them)"
        return [Problem(path, "split", reason)]
    reason = "is listed but not in JPEGImages: fetch it or take it off the list"
    return [Problem(path, "split", f"{member} {reason}", member) for member in absent]


def one_split(lists: Collection[str]) -> str | None:
    """Return train, val or test: by the main list, else by the segmentation list; trainval alone says neither."""
    order = (f"{kind.lower()}/{name}" for kind in KINDS for name in ("train", "val", "test"))
    return next((entry.split("/")[1] for entry in order if entry in lists), None)
