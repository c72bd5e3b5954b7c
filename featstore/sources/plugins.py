"""Layouts of other packages: entry points of the group `featstore.sources`, loaded when they are asked for and not before."""

import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from featstore.errors import FeatstoreError, SourceError
from featstore.records import ImageRecord, Meaning, Problem

from .files import distinct

__all__ = ["GROUP", "PlugIn", "load_all", "plug_ins"]

GROUP = "featstore.sources"
REQUIRED = ("layout", "expects", "detect", "read")


@dataclass
class PlugIn:
    """A layout that another package reads. What goes wrong in there is told in one line that names the package.

    ``holds``, ``home`` and ``meaning`` may be left out by the package: nothing, nowhere, no masks.
    """

    package: str
    layout: str
    expects: str
    holds: tuple[str, ...]
    home: Path | None
    inner: Any

    def detect(self, folder: Path) -> bool:
        """Whether ``folder`` is of this layout; raises SourceError where the package fails."""
        try:
            return bool(self.inner.detect(folder))
        except Exception as error:
            raise self.failed(error) from error

    def read(self, folder: Path) -> Iterator[ImageRecord | Problem]:
        """Yield every image once; an image_id given twice is a problem. Raises SourceError where the package fails."""
        try:
            for item in distinct(self.inner.read(folder)):
                if not isinstance(item, (ImageRecord, Problem)):
                    raise TypeError(f"read() yields {type(item).__name__}, neither ImageRecord nor Problem")
                yield item
        except Exception as error:
            raise self.failed(error) from error

    def meaning(self, folder: Path) -> Meaning:
        """Return what the numbers in masks and depth maps mean; raises SourceError where the package fails."""
        if not hasattr(self.inner, "meaning"):
            return Meaning()
        try:
            found = self.inner.meaning(folder)
            if not isinstance(found, Meaning):
                raise TypeError(f"meaning() returns {type(found).__name__}, not Meaning")
            return found
        except Exception as error:
            raise self.failed(error) from error

    def failed(self, error: Exception) -> FeatstoreError:
        """Return the line for an error inside the package; errors that featstore raises on purpose stay as they are."""
        if isinstance(error, FeatstoreError):
            return error
        return SourceError(f"layout {self.layout} of package {self.package} failed: {reason_of(error)}")


def plug_ins() -> list[EntryPoint]:
    """Return what packages offer, by name; nothing is imported."""
    return offered(tuple(sys.path))


@cache
def offered(path: tuple[str, ...]) -> list[EntryPoint]:
    """Return what the packages on Python's search path offer."""
    return sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, package_of(entry)))


def load_all(taken: Collection[str], tell: Callable[[str], object], only: str | None = None) -> Iterator[PlugIn]:
    """Load and yield each layout whose name is not ``taken``, or that called ``only`` alone.

    Those that cannot be loaded are told in one line each.
    """
    names = set(taken)
    for entry in plug_ins():
        if only not in (None, entry.name):
            continue
        try:
            if entry.name in names:
                raise SourceError(f"there is a layout {entry.name} already: its package has to rename it")
            names.add(entry.name)
            yield load(entry)
        except FeatstoreError as error:
            tell(f"package {package_of(entry)}: {error}")


def load(entry: EntryPoint) -> PlugIn:
    """Load one layout; raises SourceError saying what is wrong with it."""
    try:
        inner = entry.load()
        inner = inner() if isinstance(inner, type) else inner
    except (Exception, SystemExit) as error:  # whatever a package does on import is not to stop the others
        raise SourceError(f"layout {entry.name} ({entry.value}) cannot be loaded: {reason_of(error)}") from error
    lacking = [name for name in REQUIRED if not hasattr(inner, name)]
    if lacking:
        raise SourceError(f"layout {entry.name} ({entry.value}) has no {', '.join(lacking)}")
    if inner.layout != entry.name:
        raise SourceError(f"the entry point {entry.name} leads to a layout that calls itself {inner.layout}")
    holds, home = tuple(getattr(inner, "holds", ())), getattr(inner, "home", None)
    return PlugIn(package_of(entry), inner.layout, inner.expects, holds, home, inner)


def package_of(entry: EntryPoint) -> str:
    """Return the name of the distribution that offers an entry point."""
    return entry.dist.name if entry.dist else "?"


def reason_of(error: BaseException) -> str:
    """Return an unexpected error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
