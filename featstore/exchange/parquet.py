"""parquet: an image a row, each map as its bytes beside its shape.

A list column would hold the numbers themselves, and every reader takes it apart value by value: measured at a twenty-fifth of
the speed at which bytes are written and read.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from .formats import LeftOut, Part, Task, chunks, require_package
from .source import Sample

__all__ = ["Writer"]

FILE_BYTES = 512 * 10**6
GROUP_BYTES = 32 * 10**6
FACTS = ("image_id", "sha256", "split", "splits", "label", "width", "height", "path")
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
        maps = [column for name in self.source.shapes for column in (name, f"{name}_shape")]
        schema = self.schema.with_metadata({"featstore": json.dumps(self.task.about, ensure_ascii=False)})
        options = {"compression": "none", "use_dictionary": ["split", "label"], "write_statistics": list(FACTS)}
        with (
            self.task.folder.put(part.names[0]) as temporary,
            self.pq.ParquetWriter(temporary, schema, **options) as writer,
        ):
            for _, start, stop in chunks(part.stop - part.start, self.group):
                rows = [self.row(s) for s in self.source.samples(part.start + start, part.start + stop)]
                columns = {name: [row[name] for row in rows] for name in (*FACTS, *maps)}
                writer.write_table(self.pa.table(columns, schema=schema), row_group_size=self.group)

    def row(self, sample: Sample) -> dict[str, Any]:
        """Return one image's row."""
        row: dict[str, Any] = {name: sample.facts[name] for name in FACTS}
        for name, values in sample.arrays.items():
            row |= {name: values.tobytes(), f"{name}_shape": list(values.shape)}
        return row

    def finish(self) -> None:
        """Every file says all of itself."""
