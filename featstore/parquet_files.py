"""Parquet files asked by DuckDB, wherever they lie; what a server holds comes by ranged requests of our own."""

import atexit
import glob
import os
import re
import threading
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb

from .errors import DecodeError
from .places import as_remote
from .ranges import RangeFile
from .remote import RemotePath

__all__ = ["Table", "ask", "image_bytes", "open_table", "stamp_of"]

SCHEME = "featstore"


@dataclass(frozen=True)
class Table:
    """A Parquet file: its columns' types by name, the first row of each row group, the number of rows, and its notes."""

    columns: dict[str, str]
    starts: tuple[int, ...]
    rows: int
    notes: dict[str, str]

    def group(self, row: int) -> tuple[int, int]:
        """Return the first row of the group that holds ``row``, and the first of the next."""
        place = bisect_right(self.starts, row)
        return self.starts[place - 1], self.starts[place] if place < len(self.starts) else self.rows


class Shared:
    """DuckDB of this process, which does not live through a fork: a database in memory that starts no threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection: duckdb.DuckDBPyConnection | None = None

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a cursor for one thread."""
        with self.lock:
            if self.connection is None:
                self.connection = duckdb.connect(config={"threads": 1})
            return self.connection.cursor()

    def close(self) -> None:
        """Let go of it before Python does, which would tell of everything in it that is left."""
        with self.lock:
            if self.connection is not None:
                self.connection.close()
            self.connection = None


HERE = [Shared()]
atexit.register(lambda: HERE[0].close())
os.register_at_fork(after_in_child=lambda: HERE.insert(0, Shared()))  # a parent's is not closed here: that would crash


def ask(path: Path, sql: str, known: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Return the rows of a query whose first parameter is the file, ``known`` the others.

    Raises OSError where the file is not there, RemoteError, and DecodeError in a line that does not name it.
    """
    remote = as_remote(path)
    try:
        if remote is None:
            path.stat()
            with closing(HERE[0].cursor()) as cursor:
                # DuckDB takes names for patterns.
                return cursor.execute(sql, [glob.escape(str(path)), *known]).fetchall()
        return ask_remote(remote, sql, known)
    except (duckdb.Error, RuntimeError) as error:
        said = " ".join(re.sub(r"^[\w ]+ Error: ", "", str(error)).split("\n\n")[0].split())
        said = said.replace(str(path), path.name)
        cut = "magic bytes" in said or "footer" in said.lower()
        told = "is cut off, or no Parquet file" if cut else f"cannot be read as Parquet ({said})"
        raise DecodeError(f"{path.name} {told}: fetch it again") from error


def ask_remote(path: RemotePath, sql: str, known: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Have DuckDB read a file on a server through ``RangeFile``; that one's errors are those raised."""
    from fsspec.spec import AbstractFileSystem

    size = path.stat().st_size
    opened: list[RangeFile] = []

    class One(AbstractFileSystem):  # type: ignore[misc]
        protocol = SCHEME
        cachable = False

        def _open(self, *_: Any, **__: Any) -> RangeFile:
            opened.append(RangeFile(path, keep=False))
            return opened[-1]

        def info(self, name: str, **_: Any) -> dict[str, Any]:
            return {"name": name, "size": size, "type": "file"}

        def modified(self, name: str) -> datetime:
            return datetime.fromtimestamp(0, UTC)

        def glob(self, name: str, **_: Any) -> list[str]:
            return [name]

    # One for each query: what is registered would be left over, loudly, when Python ends.
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register_filesystem(One())
        try:
            return connection.execute(sql, [f"{SCHEME}://table.parquet", *known]).fetchall()
        except (duckdb.Error, RuntimeError, OSError):
            for file in opened:
                if file.error is not None:
                    raise file.error from None
            raise
        finally:
            connection.unregister_filesystem(SCHEME)


def stamp_of(path: Path) -> Any:
    """Return what changes with a file; None where a server would have to be asked each time."""
    remote = as_remote(path)
    if remote is None:
        status = os.stat(path)  # noqa: PTH116
        return status.st_size, status.st_mtime_ns
    return remote.stat()[:3] if remote.listing is not None else None


def open_table(path: Path) -> Table:
    """Return what a Parquet file says of itself; raises what ``ask`` raises."""
    return table_of(path, stamp_of(path))


@lru_cache(maxsize=64)
def table_of(path: Path, stamp: Any) -> Table:
    """Return what a file of this stamp says of itself."""
    columns = {row[0]: row[1] for row in ask(path, "DESCRIBE SELECT * FROM read_parquet(?)")}
    groups = ask(
        path,
        "SELECT row_group_id, any_value(row_group_num_rows) FROM parquet_metadata(?) GROUP BY 1 ORDER BY 1",
    )
    starts, rows = [], 0
    for _, count in groups:
        starts.append(rows)
        rows += int(count)
    notes = ask(path, "SELECT decode(key), value FROM parquet_kv_metadata(?)")
    return Table(columns, tuple(starts), rows, {key: value.decode("utf-8", "replace") for key, value in notes})


def image_bytes(kind: str) -> bool:
    """Whether a column of this type holds files: bytes, or {bytes, path} as Hugging Face's data sets write them."""
    return kind == "BLOB" or (kind.startswith("STRUCT(") and re.search(r'[(\s]"?bytes"? BLOB', kind) is not None)
