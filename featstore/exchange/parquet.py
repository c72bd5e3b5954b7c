"""parquet: an image a row, each map as its bytes beside its shape.

A list column would hold the numbers themselves, and every reader takes it apart value by value: measured at a twenty-fifth of
the speed at which bytes are written and read.
"""

import json
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .formats import LeftOut, Part, ReadTask, Task, chunks, own_export, require_package
from .matching import Entry
from .source import PREFIX

__all__ = ["Reader", "Writer"]

FILE_BYTES = 512 * 10**6
GROUP_BYTES = 16 * 10**6
FACTS = ("image_id", "sha256", "split", "splits", "label", "width", "height", "path", "mask_path")
NAME = "features-{:05d}-of-{:05d}.parquet"


class Writer:
    """Writes ``features-00000-of-00004.parquet``; row groups are small, so that one sample is read without many."""

    note = "pyarrow.parquet.read_table, duckdb or datasets; numpy.frombuffer(row['<variant>'], '{}').reshape(row['{}'])"
    threads = 1
    owns = (NAME.replace("{:05d}", "*"),)
    left_out: Sequence[LeftOut] = ()

    def __init__(self, task: Task) -> None:
        self.pa = require_package("pyarrow")
        self.pq = require_package("pyarrow.parquet")
        self.task, self.source = task, task.source
        self.size = task.per_file or max(1, FILE_BYTES // self.source.sample_bytes)
        self.group = max(1, GROUP_BYTES // self.source.sample_bytes)
        self.note = self.note.format(self.source.dtype.str, "<variant>_shape")
        self.schema = self.make_schema()

    def make_schema(self) -> Any:
        """Return the columns: what the manifest tells, then bytes and shape of every array."""
        pa, text = self.pa, self.pa.string()
        kinds = {"splits": pa.list_(text), "width": pa.int32(), "height": pa.int32()}
        fields = [(name, kinds.get(name, text)) for name in FACTS]
        for name in self.source.shapes:
            fields += [(name, pa.binary()), (f"{name}_shape", pa.list_(pa.int32()))]
        return pa.schema(fields)

    def parts(self) -> Iterator[Part]:
        """Yield every file."""
        total = -(-len(self.source) // self.size)
        for number, start, stop in chunks(len(self.source), self.size):
            yield Part(start, stop, (NAME.format(number, total),))

    def write(self, part: Part) -> None:
        """Write one file, a row group at a time."""
        schema = self.schema.with_metadata({"featstore": json.dumps(self.task.about, ensure_ascii=False)})
        options = {"compression": "none", "use_dictionary": ["split", "label"], "write_statistics": list(FACTS)}
        with (
            self.task.folder.put(part.names[0]) as temporary,
            self.pq.ParquetWriter(temporary, schema, **options) as writer,
        ):
            for _, start, stop in chunks(part.stop - part.start, self.group):
                columns = self.columns(part.start + start, part.start + stop)
                writer.write_table(self.pa.table(columns, schema=schema), row_group_size=self.group)

    def columns(self, start: int, stop: int) -> dict[str, Any]:
        """Return the columns of a row group; the maps' bytes are copied once, to where Arrow takes them from."""
        held = {name: np.empty((stop - start, *shape), self.source.dtype) for name, shape in self.source.shapes.items()}
        facts = []
        for row, sample in enumerate(self.source.samples(start, stop)):
            facts.append(sample.facts)
            for name, values in sample.arrays.items():
                held[name][row] = values
        columns: dict[str, Any] = {name: [fact[name] for fact in facts] for name in FACTS}
        for name, values in held.items():
            ends = np.arange(len(values) + 1, dtype=np.int32) * (values.nbytes // len(values))
            buffers = [None, self.pa.py_buffer(ends), self.pa.py_buffer(values)]
            columns[name] = self.pa.Array.from_buffers(self.pa.binary(), len(values), buffers)
            columns[f"{name}_shape"] = [list(values.shape[1:])] * len(values)
        return columns

    def finish(self) -> None:
        """Every file says all of itself."""


class Reader:
    """Reads an export of ours; a row group at a time, and images come in their order."""

    def __init__(self, task: ReadTask) -> None:
        about = own_export(task, "parquet")
        self.pq = require_package("pyarrow.parquet")
        self.files = sorted(task.folder.glob("*.parquet"))
        self.dtype = np.dtype(about["dtype"]).newbyteorder("<")
        self.kinds, self.channels = tuple(about["arrays"]), about["channels"]
        self.variants = tuple(name for name in self.kinds if name != PREFIX)
        self.held: dict[tuple[int, int], Any] = {}
        self.lock = Lock()

    def entries(self) -> Sequence[Entry]:
        """Return every row of every file."""
        found = []
        for number, path in enumerate(self.files):
            file = self.pq.ParquetFile(path)
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, ["image_id", "sha256"]).to_pylist()
                for place, row in enumerate(rows):
                    found.append(Entry(row["image_id"], (number, group, place), row["image_id"], row["sha256"]))
        return found

    def load(self, place: tuple[int, int, int], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Read one row."""
        table = self.group(*place[:2])
        found = {}
        for name in names:
            if name in self.kinds:
                shape = table[f"{name}_shape"][place[2]].as_py()
                found[name] = np.frombuffer(table[name][place[2]].as_buffer(), self.dtype).reshape(shape)
        return found

    def group(self, file: int, group: int) -> Any:
        """Return a row group; the two asked for last stay in memory."""
        with self.lock:
            if (file, group) not in self.held:
                columns = [column for name in self.kinds for column in (name, f"{name}_shape")]
                table = self.pq.ParquetFile(self.files[file]).read_row_group(group, columns)
                self.held = dict([*self.held.items(), ((file, group), table)][-2:])
            return self.held[file, group]
