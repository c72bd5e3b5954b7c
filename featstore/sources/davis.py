"""DAVIS, and YouTube-VOS in the same manner: videos as folders of frames with a mask of numbered objects a frame."""

from collections.abc import Iterator
from pathlib import Path

from featstore.records import ImageRecord, Meaning, Problem

from .base import is_text, nothing_found, unreadable_name
from .files import JPEG, PNG, by_stem, distinct, few, names_in, read_text, unmatched
from .frames import frame_names
from .levels import settle, wrapped

__all__ = ["DavisSource"]

RESOLUTIONS = ("480p", "1080p", "Full-Resolution")
LISTS = ("train", "val", "test-dev", "test-challenge", "trainval")
SPLITS = {"train": "train", "val": "val", "test-dev": "test", "test-challenge": "test"}


class DavisSource:
    """Images are ``<sequence>/<frame>``, labels sequences, masks the numbers of objects (0 is none of them).

    Of several resolutions 480p is read, and the first of the others where it is not there.
    """

    layout = "davis"
    expects = "DAVIS (JPEGImages/480p/<sequence>/00000.jpg, Annotations/480p, ImageSets) or YouTube-VOS's train, valid"
    holds: tuple[str, ...] = ("split", "label", "masks", "instances")
    home: Path | None = None

    def detect(self, folder: Path) -> bool:
        """Whether JPEGImages holds folders and no images."""
        return wrapped(folder, fits)

    def read(self, folder: Path) -> Iterator[ImageRecord | Problem]:
        """Yield frames by sequence and number; sequences that a list names and that are not there are problems.

        Raises SourceError where the folder is not of this layout or holds no frame.
        """
        base = settle(folder, self, fits)
        prefix = "" if base == folder else f"{base.name}/"
        level = next((f"/{name}" for name in RESOLUTIONS if (base / "JPEGImages" / name).is_dir()), "")
        sequences, _ = names_in(base / f"JPEGImages{level}")
        lists = sequence_lists(base)
        for path, named in lists.items():
            lost = named - set(sequences)
            words = f"sequences listed are not in JPEGImages{level}, extract it again or take them off"
            yield from unmatched(f"{prefix}ImageSets/{path}.txt", "split", lost, len(named), words)
        yield from lost_sequences(base, prefix, level, sequences)
        count = 0
        for name in sequences:
            own = tuple(path for path, named in lists.items() if name in named)
            for item in distinct(read_sequence(base, prefix, level, name, own)):
                count += isinstance(item, ImageRecord)
                yield item
        if not count:
            raise nothing_found(folder, self)

    def meaning(self, folder: Path) -> Meaning:
        """Labels are numbers of objects, whose names the data set does not tell."""
        return Meaning()


def fits(folder: Path) -> bool:
    """Whether JPEGImages has folders and no images, as videos have and VOC has not."""
    folders, files = names_in(folder / "JPEGImages")
    return bool(folders) and not any(name.lower().endswith(JPEG) for name in files)


def lost_sequences(base: Path, prefix: str, level: str, sequences: list[str]) -> Iterator[Problem]:
    """Yield a problem where there are masks of sequences without frames: half an archive."""
    masked, _ = names_in(base / f"Annotations{level}")
    words = f"sequences in Annotations{level} have no frames here, extract it again"
    yield from unmatched(f"{prefix}JPEGImages{level}", "image", set(masked) - set(sequences), len(masked), words)


def sequence_lists(base: Path) -> dict[str, set[str]]:
    """Return the sequences that each list names, by its path below ImageSets without ending: ``2017/train``.

    Lists of 2016 name files, ``/JPEGImages/480p/bear/00000.jpg /Annotations/…``: the sequence is the last folder.
    """
    found: dict[str, set[str]] = {}
    for year in names_in(base / "ImageSets")[0]:
        for name in LISTS:
            lines = (read_text(base / "ImageSets" / year / f"{name}.txt") or "").split("\n")
            words = [line.split()[0] for line in lines if line.strip()]
            if words:
                found[f"{year}/{name}"] = {word.strip("/").split("/")[-2] if "/" in word else word for word in words}
    return found


def read_sequence(
    base: Path, prefix: str, level: str, name: str, lists: tuple[str, ...]
) -> Iterator[ImageRecord | Problem]:
    """Yield the frames of one sequence, with those of its masks that are there: some sets mark the first frame alone."""
    at, beside = f"{prefix}JPEGImages{level}/{name}", f"{prefix}Annotations{level}/{name}"
    frames = by_stem(base / f"JPEGImages{level}" / name, JPEG)
    masks = by_stem(base / f"Annotations{level}" / name, PNG)
    lost = masks.keys() - frames.keys()
    if lost:
        yield Problem(at, "image", f"{len(lost)} of {len(masks)} masks in {beside} have no frame here: {few(lost)}")
    known = [path.split("/")[1] for path in lists]
    split = next((SPLITS[kind] for kind in SPLITS if kind in known), None)
    texts = [stem for stem in frames if is_text(name + stem)]
    for stem, frame in frame_names(texts).items():
        mask = f"{beside}/{masks[stem][0]}" if stem in masks else None
        path = f"{at}/{frames[stem][0]}"
        yield ImageRecord(f"{name}/{frame}", path, None, split, lists, name, mask_path=mask, instance_path=mask)
    yield from (unreadable_name(f"{at}/{frames[stem][0]}") for stem in frames.keys() - set(texts))
