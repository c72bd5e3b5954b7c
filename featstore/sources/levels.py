"""Which folder is meant where somebody names the one above or below the right one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from featstore.errors import SourceError
from featstore.places import as_remote

from .base import Source, require_folder
from .files import names_in

__all__ = ["Fits", "folders_in", "nearby", "settle", "wrapped"]

Fits = Callable[[Path], bool]
ABOVE = 3
LOOKED_INTO = 32
"""Sub-folders that are asked at most: a data set's own folder has few beside it, a folder of classes a thousand."""


def folders_in(folder: Path) -> list[Path]:
    """Return the sub-folders that are not hidden, by name; none where there is no folder or it may not be listed."""
    with suppress(SourceError):
        return [folder / name for name in names_in(folder)[0]]
    return []


def wrapped(folder: Path, fits: Fits) -> bool:
    """Whether a folder fits, or holds nothing but the one sub-folder that does, as archives unpack."""
    if fits(folder):
        return True
    inside = folders_in(folder)
    return len(inside) == 1 and fits(inside[0])


def settle(folder: Path, source: Source, fits: Fits) -> Path:
    """Return the folder that is meant: the one given, or the only one of its sub-folders that fits.

    Raises SourceError, naming the right folder where it is above or among several below, for one that is missing or not of
    the layout.
    """
    require_folder(folder)
    if fits(folder):
        return folder
    below = [path for path in folders_in(folder) if fits(path)]
    if len(below) == 1:
        return below[0]
    hint = ""
    if below:
        hint = f"; give one of its sub-folders: {', '.join(path.name for path in below)}"
    above = folder
    for _ in range(ABOVE):
        if above.parent == above:
            break
        above = above.parent
        if not below and fits(above):
            hint = f"; the folder to give is {above}"
            break
    raise SourceError(f"{folder} is not of layout {source.layout}, which expects {source.expects}{hint}")


def nearby(folder: Path, known: Sequence[Source]) -> Iterator[str]:
    """Yield a line for each data set of a known layout right below a folder, or for the one that the folder is a part of.

    For a folder that is about to be read as any folder of images.
    """
    if as_remote(folder) is not None:
        return
    below = [(path, likely(path, known)) for path in folders_in(folder)[:LOOKED_INTO]]
    for path, layout in below:
        if layout:
            yield f"{path} is of layout {layout}: give that folder, if its labels and masks are wanted"
    for path in () if any(layout for _, layout in below) else [*folder.parents][:ABOVE]:
        layout = likely(path, known)
        if layout:
            yield f"{folder} is a part of {path}, of layout {layout}: give that folder, if its labels and masks are wanted"
            return


def likely(folder: Path, known: Sequence[Source]) -> str:
    """Return the layout of a folder, empty where it has none or may not be looked into."""
    with suppress(SourceError, OSError):
        return next((source.layout for source in known if source.detect(folder)), "")
    return ""
