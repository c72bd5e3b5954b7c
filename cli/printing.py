"""Write rows for people and for programs."""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any

import click
from tabulate import tabulate

__all__ = ["bytes_text", "csv_text", "emit_json", "json_text", "plural", "seconds_text", "table_text"]

UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def table_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return an aligned table; NULL is shown as nothing."""
    shown = [["" if value is None else cell(value) for value in row] for row in rows]
    return tabulate(shown, headers=list(columns), tablefmt="simple", disable_numparse=True)


def cell(value: Any) -> str:
    """Return one value as a table shows it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, (list, tuple)):
        return ", ".join(map(cell, value))
    return str(value)


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return RFC 4180 CSV with a header line."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([cell_json(v) if isinstance(v, (list, dict)) else v for v in row] for row in rows)
    return buffer.getvalue()


def cell_json(value: Any) -> str:
    """Return a nested value as JSON text."""
    return json.dumps(plain(value), ensure_ascii=False)


def json_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a JSON list of objects."""
    return json.dumps([plain(dict(zip(columns, row, strict=True))) for row in rows], ensure_ascii=False, indent=1)


def emit_json(value: Any) -> None:
    """Print one JSON value."""
    click.echo(json.dumps(plain(value), ensure_ascii=False, indent=1))


def plain(value: Any) -> Any:
    """Return ``value`` as JSON can hold it; NaN becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)


def bytes_text(count: float) -> str:
    """Return a size in words, powers of 1000."""
    power = min(int(math.log(count, 1000)), len(UNITS) - 1) if count >= 1 else 0
    return f"{count / 1000**power:.{1 if power else 0}f} {UNITS[power]}"


def seconds_text(seconds: float) -> str:
    """Return a duration in words."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def plural(count: int, word: str) -> str:
    """Return ``1 image``, ``2 images``."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"
