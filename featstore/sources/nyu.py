"""NYU Depth v2: the labelled MATLAB file, or folders of image and depth pairs as they are passed around."""

from collections.abc import Iterator
from pathlib import Path

from featstore.errors import SourceError
from featstore.records import ImageRecord, Meaning, Problem

from .base import nothing_found
from .files import distinct, names_in
from .levels import settle, wrapped
from .nyu_labelled import labelled_meaning, read_labelled
from .nyu_pairs import Pairs, flat_pairs, kaggle_pairs, read_pairs, sync_pairs, unit_of

__all__ = ["NyuSource"]

LABELLED = "nyu_depth_v2_labeled.mat"
KINDS = (kaggle_pairs, sync_pairs, flat_pairs)


class NyuSource:
    """The labelled file (1,449 images with labels, instances and depths), or a folder of pairs.

    Of pairs there are nyu2_train and nyu2_test (``<scene>/N.jpg`` and ``N.png``, ``N_colors.png`` and ``N_depth.png``), sync
    and official_splits (``<scene>/rgb_N.jpg`` and ``sync_depth_N.png``), and ``image_N.png`` beside ``depth_N.png``. The part
    is the scene, the label its kind. Depths are metres in the labelled file, millimetres where files have 16 bits, and
    10 m / 255 where they have 8, as in nyu2_train. A folder with both has no one unit: index nyu2_train and nyu2_test apart.
    """

    layout = "nyu"
    expects = f"{LABELLED}, or a folder with nyu2_train and nyu2_test, with sync, or with image_0.png and depth_0.png …"
    holds: tuple[str, ...] = ("split", "label", "masks", "instances", "depth")
    home: Path | None = None

    def detect(self, folder: Path) -> bool:
        """Whether it is the labelled file or a folder of one of the forms, or the only thing in it is."""
        if folder.name.lower().endswith(".mat"):
            return folder.is_file()
        return wrapped(folder, fits)

    def read(self, folder: Path) -> Iterator[ImageRecord | Problem]:
        """Yield images by split and name, before them what is missing.

        Raises SourceError where nothing of these forms is there, or the labelled file is no MATLAB v7.3 file of images.
        """
        file = self.labelled(folder)
        if file is not None:
            yield from read_labelled(*file)
            return
        base, prefix = self.settled(folder)
        empty = True
        for item in distinct(item for pairs in pairs_in(base) for item in read_pairs(pairs, prefix)):
            empty = empty and not isinstance(item, ImageRecord)
            yield item
        if empty:
            raise nothing_found(folder, self)

    def meaning(self, folder: Path) -> Meaning:
        """Return the unit of the depth maps, and the names of the labelled file's classes."""
        file = self.labelled(folder)
        if file is not None:
            return labelled_meaning(file[0])
        units = {unit_of(pairs) for pairs in pairs_in(self.settled(folder)[0])} - {None}
        return Meaning(depth_metres=units.pop() if len(units) == 1 else None)

    def settled(self, folder: Path) -> tuple[Path, str]:
        """Return the folder that is meant, and its path below the one given with a closing slash."""
        base = settle(folder, self, fits)
        return base, "" if base == folder else f"{base.name}/"

    def labelled(self, source: Path) -> tuple[Path, str] | None:
        """Return the labelled file and its path below the source's folder; None where the source has none."""
        if source.name.lower().endswith(".mat") and source.is_file():
            return source, source.name
        if source.is_file():
            raise SourceError(f"{source} is no .mat file; layout nyu expects {self.expects}")
        base, prefix = self.settled(source)
        name = labelled_name(base)
        return (base / name, prefix + name) if name else None


def fits(folder: Path) -> bool:
    """Whether a folder holds the labelled file or pairs."""
    return labelled_name(folder) is not None or any(kind(folder) for kind in KINDS)


def labelled_name(folder: Path) -> str | None:
    """Return the labelled file's name in a folder; None where there is none."""
    return next((name for name in names_in(folder)[1] if name.lower() == LABELLED), None)


def pairs_in(folder: Path) -> list[Pairs]:
    """Return what pairs a folder holds, of the first form that fits."""
    return next((found for kind in KINDS if (found := kind(folder))), [])
