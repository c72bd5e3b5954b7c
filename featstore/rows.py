"""Rows into the manifest, in bulk."""

import json
import math
import tempfile
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import duckdb

__all__ = ["insert", "plain"]


def insert(
    connection: duckdb.DuckDBPyConnection, table: str, rows: Iterable[Mapping[str, Any]], verb: str = "INSERT"
) -> int:
    """Insert dict rows in bulk and return how many; absent columns and NaN become NULL.

    Goes through one temporary line-JSON file: three orders of magnitude faster than a prepared statement a row.
    ``verb`` may be ``INSERT OR REPLACE``.
    """
    types = {row[0]: row[1] for row in connection.execute(f"DESCRIBE {table}").fetchall()}
    # JSON columns are given as texts, which stay as they are; read as JSON, a text would become a string inside JSON.
    columns = ", ".join(f"'{name}': '{'VARCHAR' if kind == 'JSON' else kind}'" for name, kind in types.items())
    count = 0
    with tempfile.NamedTemporaryFile("w", suffix=".ndjson", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({key: plain(value) for key, value in row.items()}) + "\n")
            count += 1
        file.flush()
        if count:
            source = f"read_json(?, format='newline_delimited', columns={{{columns}}})"
            names = ", ".join(types)
            connection.execute(f"{verb} INTO {table} ({names}) SELECT {names} FROM {source}", [file.name])
    return count


def plain(value: Any) -> Any:
    """Return ``value`` as JSON can hold it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    return value
