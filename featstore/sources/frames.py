"""Videos as folders of frames: any folder of such folders."""

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from featstore.records import ImageRecord, Meaning, Problem

from .base import is_text, nothing_found, require_folder, unreadable_name
from .files import distinct, names_in, stems_of
from .folder import ENDINGS, SPLITS

__all__ = ["FramesSource", "frame_names"]

NUMBER = re.compile(r"(\d+)")


class FramesSource:
    """A frame is ``<sequence>/<frame>``, the label its sequence. The folder itself may be a sequence.

    Numbers in names are filled up with noughts to the widest of their sequence, so that frame 2 comes before frame 10 wherever
    images are ordered by name.
    """

    layout = "frames"
    expects = "a folder of frames a video, below train, val or test where there are such; never detected, ask for it"
    holds: tuple[str, ...] = ("split", "label")
    home: Path | None = None

    def detect(self, folder: Path) -> bool:
        """Never: it looks like any folder of classes."""
        return False

    def read(self, folder: Path) -> Iterator[ImageRecord | Problem]:
        """Yield the frames of each sequence in their order; raises SourceError where there are none."""
        require_folder(folder)
        empty = True
        for item in distinct(sequences(folder, "")):
            empty = False
            yield item
        if empty:
            raise nothing_found(folder, self)

    def meaning(self, folder: Path) -> Meaning:
        """There are no masks."""
        return Meaning()


def sequences(folder: Path, place: str) -> Iterator[ImageRecord | Problem]:
    """Yield the frames in a folder, then those of the folders in it; ``place`` is its path below the source."""
    folders, files = names_in(folder)
    named = {stem: names[0] for stem, names in stems_of(files, tuple(ENDINGS)).items()}
    first, _, rest = place.partition("/")
    split = SPLITS.get(first.lower())
    sequence = (rest if split else place).rstrip("/") or None
    for stem, frame in frame_names([stem for stem in named if is_text(place + stem)]).items():
        splits = (f"frames/{split}",) if split else ()
        name = f"{sequence or split}/{frame}" if sequence or split else frame
        yield ImageRecord(name, place + named[stem], split=split, splits=splits, label=sequence)
    yield from (unreadable_name(place + name) for stem, name in named.items() if not is_text(place + stem))
    for name in folders:
        yield from sequences(folder / name, f"{place}{name}/")


def frame_names(stems: Collection[str]) -> dict[str, str]:
    """Return names of one sequence's frames by stem, in the order of their numbers, which they share with their names' order.

    Every number is filled up to the widest at its place: ``2`` and ``10`` become ``02`` and ``10``.
    """
    parted = {stem: NUMBER.split(stem) for stem in stems}
    widths: dict[int, int] = {}
    for words in parted.values():
        for place in range(1, len(words), 2):
            widths[place] = max(widths.get(place, 0), len(words[place]))
    filled = {
        stem: "".join(word.zfill(widths[place]) if place % 2 else word for place, word in enumerate(words))
        for stem, words in parted.items()
    }
    same = len(set(filled.values())) < len(filled)  # 2 and 02: both would be 02
    return {stem: stem if same else filled[stem] for stem in sorted(filled, key=lambda stem: (filled[stem], stem))}
