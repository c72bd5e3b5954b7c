"""The formats, and the one protocol they keep."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from featstore.errors import InputError

from .folder import Folder
from .matching import Entry
from .source import Source

__all__ = [
    "FORMATS",
    "Format",
    "LeftOut",
    "Part",
    "ReadTask",
    "Reader",
    "Task",
    "chunks",
    "make_format",
    "make_reader",
    "own_export",
    "require_package",
]

FORMATS = ("npy", "safetensors", "parquet", "zarr", "webdataset", "dvt")


@dataclass(frozen=True)
class Task:
    """What a format is given: where the samples come from, where they go, and how many images a file should hold."""

    source: Source
    folder: Folder
    per_file: int | None
    about: dict[str, Any]


@dataclass(frozen=True)
class ReadTask:
    """What a reader is given: a folder, what an export of ours says of itself there, the variants and the model asked for."""

    folder: Path
    about: dict[str, Any] | None
    variants: tuple[str, ...] = ()
    model: str | None = None


@dataclass(frozen=True)
class Part:
    """Samples ``start`` to ``stop`` - 1 that are written together, and the names of the files that then are there."""

    start: int
    stop: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class LeftOut:
    """An image that a format cannot hold, with the reason."""

    image_id: str
    reason: str


class Format(Protocol):
    """How one format is written: parts, each by itself and whole or not at all, then what ties them together.

    ``owns`` are patterns of the names it makes in its folder, ``note`` says in one line how to read it, ``threads`` is how
    many parts may be written at once.
    """

    owns: tuple[str, ...]
    note: str
    threads: int
    left_out: Sequence[LeftOut]

    def __init__(self, task: Task) -> None:
        """Look at the task; raises InputError for what this format cannot do."""
        ...

    def parts(self) -> Iterator[Part]:
        """Yield every part; the same for the same task."""
        ...

    def write(self, part: Part) -> None:
        """Write one part."""
        ...

    def finish(self) -> None:
        """Write what ties the parts together; all of them are there."""
        ...


class Reader(Protocol):
    """How a format is read: what there is, and the arrays of one entry by variant, ``prefix_tokens`` among them.

    ``channels`` is ``last`` or ``first`` where the format tells, else None.
    """

    variants: tuple[str, ...]
    channels: str | None

    def entries(self) -> Sequence[Entry]:
        """Return every image's features, in the order of their names."""
        ...

    def load(self, place: Any, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Read those arrays of one entry that are there; raises OSError or ValueError where they cannot be read."""
        ...


def make_reader(name: str, task: ReadTask) -> Reader:
    """Return the reader of a format; raises InputError as ``make_format`` does, and for a folder not of the format."""
    if name not in FORMATS:
        raise InputError(f"unknown format {name!r}: choose from {', '.join(FORMATS)}")
    made: Reader = import_module(f".{name}", __package__).Reader(task)
    return made


def make_format(name: str, task: Task) -> Format:
    """Return the writer of a format.

    Raises InputError for an unknown one, or where a package is missing, naming the extra that brings it.
    """
    if name not in FORMATS:
        raise InputError(f"unknown format {name!r}: choose from {', '.join(FORMATS)}")
    made: Format = import_module(f".{name}", __package__).Writer(task)
    return made


def require_package(name: str) -> Any:
    """Import a package of the extra `export`; raises InputError, saying how to install it, where it is missing."""
    try:
        return import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise InputError(f'this format needs {package}: pip install "featstore-dvt[export]"') from error


def own_export(task: ReadTask, name: str) -> dict[str, Any]:
    """Return what an export says of itself; raises InputError where the folder is none of this format."""
    if task.about is None or task.about["format"] != name:
        raise InputError(f"{task.folder} is no {name} export of featstore: other files are read as npy or dvt")
    return task.about


def chunks(count: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Yield (number, start, stop) of every run of ``size``."""
    for number, start in enumerate(range(0, count, size)):
        yield number, start, min(start + size, count)
