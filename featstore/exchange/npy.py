"""npy: a folder a variant, in it one .npy file an image; index.csv tells which is which."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from featstore.errors import InputError

from .formats import LeftOut, Part, Task
from .naming import file_names

__all__ = ["INDEX", "Writer", "index_text"]

INDEX = "index.csv"
COLUMNS = ("sha256", "split", "splits", "label", "width", "height", "path")


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
