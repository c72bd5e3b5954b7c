"""Images inside Parquet files, read a row group at a time; the row groups used last are kept."""

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from .errors import DecodeError
from .parquet_files import Table, ask, image_bytes, open_table, stamp_of

__all__ = ["read_parquet"]

KEPT_GROUPS, KEPT_BYTES = 8, 1 << 29
"""How many row groups of images are kept, and how many bytes of them unless it is but one."""


class Groups:
    """Row groups of one column as lists of bytes; a group that a thread reads is waited for by the others."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.kept: OrderedDict[Any, tuple[list[bytes | None], int]] = OrderedDict()
        self.busy: dict[Any, threading.Lock] = {}

    def get(self, path: Path, column: str, row: int) -> bytes | None:
        """Return the bytes in one row; raises DecodeError where there is no such place."""
        table = open_table(path)
        if not image_bytes(table.columns.get(column, "")) or row >= table.rows:
            raise DecodeError(
                f"{path.name} holds no row {row} of a column {column} of images: index the data set again"
            )
        start, stop = table.group(row)
        key = str(path), stamp_of(path), column, start
        with self.lock:
            if key in self.kept:
                self.kept.move_to_end(key)
                return self.kept[key][0][row - start]
            alone = self.busy.setdefault(key, threading.Lock())
        with alone:
            with self.lock:
                values = self.kept[key][0] if key in self.kept else None
            if values is None:
                values = read_rows(path, table, column, start, stop)
                self.keep(key, values)
        return values[row - start]

    def keep(self, key: Any, values: list[bytes | None]) -> None:
        """Keep a group, and let go of those unused for longest."""
        with self.lock:
            self.kept[key] = values, sum(len(value or b"") for value in values)
            self.busy.pop(key, None)
            while len(self.kept) > 1 and (
                len(self.kept) > KEPT_GROUPS or sum(size for _, size in self.kept.values()) > KEPT_BYTES
            ):
                self.kept.popitem(last=False)


GROUPS = [Groups()]
os.register_at_fork(after_in_child=lambda: GROUPS.__setitem__(0, Groups()))


def read_parquet(path: Path, member: str) -> bytes:
    """Return what ``ROW/COLUMN`` of a Parquet file holds: bytes, or the bytes of a {bytes, path}; rows count from 0.

    Raises OSError where the file is not there, DecodeError in a line that does not name it.
    """
    number, _, column = member.partition("/")
    if not number.isdigit():
        raise DecodeError(f"{member} is no place in a Parquet file, which is ROW/COLUMN: 17/image")
    data = GROUPS[0].get(path, column, int(number))
    if data is None:
        raise DecodeError(f"row {number} of column {column} in {path.name} is empty")
    return data


def read_rows(path: Path, table: Table, column: str, start: int, stop: int) -> list[bytes | None]:
    """Return the bytes of rows ``start`` to ``stop`` of one column."""
    name = '"' + column.replace('"', '""') + '"'
    value = name if table.columns[column] == "BLOB" else f"{name}.bytes"
    rows = ask(
        path,
        f"SELECT {value} FROM read_parquet(?, file_row_number = true) "
        "WHERE file_row_number >= ? AND file_row_number < ? ORDER BY file_row_number",
        [start, stop],
    )
    if len(rows) != stop - start:
        raise DecodeError(f"{path.name} holds {len(rows)} of the rows {start} to {stop}: fetch it again")
    return [row[0] for row in rows]
