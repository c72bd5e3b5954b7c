"""safetensors: one file an image with a tensor a variant, or images stacked in files of ``per_file``.

The format is a length, a JSON header and the tensors' bytes; written here sample by sample, so that no file is ever held in
memory, and read in the tests by the library.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from .formats import LeftOut, Part, ReadTask, Task, chunks, own_export
from .matching import Entry
from .naming import file_names
from .npy import INDEX, index_text, read_index
from .source import PREFIX

__all__ = ["Reader", "Writer"]

TYPES = {"float16": "F16", "float32": "F32"}
FOLDER = "features"


class Writer:
    """Writes ``features/<name>.safetensors``, or ``features-00000-of-00008.safetensors``."""

    left_out: Sequence[LeftOut] = ()

    def __init__(self, task: Task) -> None:
        self.task, self.source = task, task.source
        self.stacked = task.per_file if task.per_file and task.per_file > 1 else 0
        self.threads = 1 if self.stacked else 4
        self.owns = (f"{FOLDER}-*-of-*.safetensors", INDEX) if self.stacked else (FOLDER, INDEX)
        one = "safetensors.numpy.load_file('<file>')['<variant>']"
        many = "safetensors.safe_open('<file>', 'numpy').get_slice('<variant>')[<row>]"
        self.note = f"{many if self.stacked else one}; {INDEX} gives <file>{' and <row>' * bool(self.stacked)}"
        self.names = [] if self.stacked else file_names(self.source.image_ids, self.source.paths)

    def parts(self) -> Iterator[Part]:
        """Yield every file."""
        if not self.stacked:
            for number, name in enumerate(self.names):
                yield Part(number, number + 1, (f"{FOLDER}/{name}.safetensors",))
            return
        total = -(-len(self.source) // self.stacked)
        for number, start, stop in chunks(len(self.source), self.stacked):
            yield Part(start, stop, (f"{FOLDER}-{number:05d}-of-{total:05d}.safetensors",))

    def write(self, part: Part) -> None:
        """Write one file: the header, then each sample where it belongs."""
        count = part.stop - part.start if self.stacked else 0
        facts = [self.source.facts(number) for number in range(part.start, part.stop)]
        header, places = self.header(facts, count)
        with self.task.folder.put(part.names[0]) as temporary, temporary.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for row, sample in enumerate(self.source.samples(part.start, part.stop)):
                for name, values in sample.arrays.items():
                    put(file, 8 + len(header) + places[name] + row * values.nbytes, values)

    def header(self, facts: Sequence[dict[str, object]], count: int) -> tuple[bytes, dict[str, int]]:
        """Return the header, and where in the data each tensor begins; ``count`` 0 is one image without its axis."""
        keys = ("image_id", "sha256", "split", "label")
        columns = {key: [fact[key] for fact in facts] for key in keys}
        about = {key: self.task.about[key] for key in ("version", "digest", "method")} | {"format": "featstore"}
        words = {key: json.dumps(values, ensure_ascii=False) for key, values in columns.items()}
        if not count:
            words = {key: str(values[0]) for key, values in columns.items() if values[0] is not None}
        entries: dict[str, object] = {"__metadata__": about | words}
        places, end = {}, 0
        for name, shape in self.source.shapes.items():
            size = max(count, 1) * int(np.prod(shape)) * self.source.dtype.itemsize
            whole = [count, *shape] if count else list(shape)
            kind = TYPES[self.source.dtype.name]
            entries[name] = {"dtype": kind, "shape": whole, "data_offsets": [end, end + size]}
            places[name], end = end, end + size
        text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
        return text + b" " * (-len(text) % 8), places

    def finish(self) -> None:
        """Write the index."""
        size = self.stacked or 1
        total = -(-len(self.source) // size)
        self.task.folder.write(
            INDEX, index_text(self.rows(size, total), ("file", "row") if self.stacked else ("file",))
        )

    def rows(self, size: int, total: int) -> Iterator[dict[str, object]]:
        """Yield what the index tells of every image."""
        for number in range(len(self.source)):
            shared = f"{FOLDER}-{number // size:05d}-of-{total:05d}.safetensors"
            file = shared if self.stacked else f"{FOLDER}/{self.names[number]}.safetensors"
            yield self.source.facts(number) | {"file": file, "row": number % size}


def put(file: BinaryIO, place: int, values: NDArray[Any]) -> None:
    """Write an array's bytes at a place of the file."""
    file.seek(place)
    file.write(values.data)


class Reader:
    """Reads an export of ours, by its index."""

    def __init__(self, task: ReadTask) -> None:
        about = own_export(task, "safetensors")
        self.folder, self.stacked = task.folder, (about["per_file"] or 1) > 1
        self.variants, self.channels = tuple(name for name in about["arrays"] if name != PREFIX), about["channels"]

    def entries(self) -> Sequence[Entry]:
        """Return every image of the index."""
        rows = read_index(self.folder)
        return [
            Entry(row["image_id"], (row["file"], int(row.get("row", 0))), row["image_id"], row["sha256"])
            for row in rows
        ]

    def load(self, place: tuple[str, int], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Read one image's tensors."""
        path, row = self.folder / place[0], place[1]
        try:
            with safe_open(path, "numpy") as file:
                there = [name for name in names if name in file.keys()]  # noqa: SIM118
                return {name: file.get_slice(name)[row] if self.stacked else file.get_tensor(name) for name in there}
        except SafetensorError as error:
            raise ValueError(f"{place[0]} is no whole safetensors file: {error}") from error
