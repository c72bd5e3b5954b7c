"""npy: a folder a variant, in it one .npy file an image; index.csv tells which is which."""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featstore.compute import VARIANTS
from featstore.errors import CorruptError, InputError

from .formats import LeftOut, Part, ReadTask, Task
from .matching import Entry
from .naming import file_names
from .source import PREFIX

__all__ = ["INDEX", "Reader", "Writer", "index_text", "load_npy", "npy_files", "read_index"]

INDEX = "index.csv"
COLUMNS = ("sha256", "split", "splits", "label", "width", "height", "path", "mask_path")


class Writer:
    """Writes ``<variant>/<name>.npy``."""

    note = "numpy.load('<variant>/<file>.npy'); index.csv gives <file> of every image_id"
    threads = 4
    left_out: Sequence[LeftOut] = ()

    def __init__(self, task: Task) -> None:
        if task.per_file not in (None, 1):
            raise InputError("npy is one file an image: leave out --per-file, or take another format")
        self.task, self.source = task, task.source
        self.names = file_names(self.source.image_ids, self.source.paths)
        self.owns = (*self.source.shapes, INDEX)

    def parts(self) -> Iterator[Part]:
        """Yield every image."""
        for number, name in enumerate(self.names):
            yield Part(number, number + 1, tuple(f"{variant}/{name}.npy" for variant in self.source.shapes))

    def write(self, part: Part) -> None:
        """Write one image's files."""
        sample = self.source.read(part.start)
        for name, values in zip(part.names, sample.arrays.values(), strict=True):
            with self.task.folder.put(name) as temporary, temporary.open("wb") as file:
                np.lib.format.write_array(file, values, version=(1, 0))

    def finish(self) -> None:
        """Write the index."""
        rows = (self.source.facts(number) | {"file": name} for number, name in enumerate(self.names))
        self.task.folder.write(INDEX, index_text(rows))


def index_text(rows: Iterable[dict[str, Any]], places: Sequence[str] = ("file",)) -> str:
    """Return the index of an export as CSV, one line an image; ``places`` are the columns that say where it lies."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = ["image_id", *places, *COLUMNS]
    writer.writerow(names)
    for row in rows:
        flat = row | {"splits": json.dumps(row["splits"], ensure_ascii=False)}
        writer.writerow([flat[name] for name in names])
    return buffer.getvalue()


class Reader:
    """Reads an export of ours, or any folder of .npy files: a sub-folder a variant, or all of the one variant named."""

    def __init__(self, task: ReadTask) -> None:
        self.folder, self.about = task.folder, task.about
        self.channels: str | None = task.about["channels"] if task.about else None
        kinds = [name for name in (*VARIANTS, PREFIX) if (task.folder / name).is_dir()]
        self.single = not kinds
        if self.single and len(task.variants) != 1:
            raise InputError(
                f"{task.folder} has no sub-folder raw or clean: say what its files are with --variants raw or --variants clean"
            )
        self.kinds = kinds or list(task.variants)
        self.variants = tuple(name for name in self.kinds if name != PREFIX)

    def entries(self) -> Sequence[Entry]:
        """Return every image that has a file."""
        if self.about is not None:
            rows = read_index(self.folder)
            return [Entry(row["file"], row["file"], row["image_id"], row["sha256"]) for row in rows]
        folders = [self.folder] if self.single else [self.folder / name for name in self.kinds]
        names = sorted({name for folder in folders for name in npy_files(folder)})
        return [Entry(name, name) for name in names]

    def load(self, place: str, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Read the files of one image that are there."""
        folders = {name: self.folder if self.single else self.folder / name for name in names if name in self.kinds}
        files = {name: folder / f"{place}.npy" for name, folder in folders.items()}
        return {name: load_npy(file) for name, file in files.items() if file.exists()}


def npy_files(folder: Path) -> Iterator[str]:
    """Yield the path below ``folder``, without ending, of every .npy file; hidden ones are passed over."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.endswith(".npy") and not name.startswith("."):
                yield (Path(place) / name).relative_to(folder).as_posix()[:-4]


def load_npy(path: Path) -> NDArray[Any]:
    """Read an array; raises ValueError, naming the file, where it is not whole. Never runs code that a file holds."""
    try:
        values: NDArray[Any] = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path.name} is no whole .npy file: {' '.join(str(error).split())}") from error
    return values


def read_index(folder: Path) -> list[dict[str, str]]:
    """Read the index of an export; raises CorruptError where it is not there."""
    try:
        with (folder / INDEX).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise CorruptError(f"{folder / INDEX}, which tells the files apart, cannot be read: export again") from error
