"""Lists of VOC images by their paths, such as DVT's voc_train.txt: each is a split of its own, `list/voc_train`."""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from featstore.records import Problem

from .files import names_in, read_text, unmatched

__all__ = ["Lists", "read_path_lists"]

LINE = re.compile(r"(?:.*/)?(VOC\d{4})/JPEGImages/([^/]+?)\.jpe?g(?:\s.*)?", re.IGNORECASE)

Lists = dict[str, dict[str, set[str]]]
"""By part and image, the lists that name it."""


def read_path_lists(folder: Path, parts: Mapping[str, tuple[Path, Collection[str]]]) -> tuple[Lists, list[Problem]]:
    """Return what lists say whose first line is a path such as ``…/VOC2012/JPEGImages/2009_002605.jpg``.

    They are looked for in ``folder``, in the parts, their ImageSets and the folders between. ``parts`` has each part's folder
    and the names of its images. Images named and not there are a problem for each list.
    """
    found: Lists = {name: {} for name in parts}
    problems: list[Problem] = []
    for path, text in text_files(folder, [place for place, _ in parts.values()]):
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        if not lines or not LINE.fullmatch(lines[0]):
            continue
        below = path.relative_to(folder).as_posix()
        absent: list[str] = []
        for line in dict.fromkeys(lines):
            match = LINE.fullmatch(line)
            part, stem = (match[1].upper(), match[2]) if match else ("", "")
            if part in parts and stem in parts[part][1]:
                found[part].setdefault(stem, set()).add(f"list/{path.stem}")
            else:
                absent.append(f"{part}/{stem}" if match else line)
        words = "images listed are not here: fetch them or take them off the list"
        problems += unmatched(below, "split", absent, len(lines), words)
    return found, problems


def text_files(folder: Path, parts: list[Path]) -> Iterator[tuple[Path, str]]:
    """Yield text files where lists may be."""
    places = [
        folder,
        *(part.parent for part in parts if part != folder),
        *parts,
        *(part / "ImageSets" for part in parts),
    ]
    for place in dict.fromkeys(places):
        for name in names_in(place)[1]:
            if name.lower().endswith(".txt"):
                yield place / name, read_text(place / name) or ""
