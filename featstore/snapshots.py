"""What a data set's folder keeps of its index: a few sealed files a revision, from which a manifest can be rebuilt."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from . import manifest
from .manifest import plain
from .revisions import as_dicts
from .sealing import storing, write_bytes, write_text

__all__ = ["FOLDER", "Revision", "forget_snapshots", "keep_snapshots", "read_problems", "read_snapshots"]

FOLDER = ".index"
PROBLEMS = "problems.json"
TABLES = {
    "images": "SELECT * EXCLUDE (last_revision, masks_read) FROM images WHERE dataset = ? AND first_revision = ? "
    "ORDER BY image_id",
    "objects": "SELECT * FROM objects WHERE dataset = ? AND first_revision = ? ORDER BY image_id, number",
    "retired": "SELECT image_id, first_revision FROM images WHERE dataset = ? AND last_revision = ? - 1 ORDER BY image_id",
}
"""What is new in a revision, and which rows of earlier ones it closes."""


@dataclass(frozen=True)
class Revision:
    """One revision as it was kept: its rows of ``revisions`` and ``datasets``, and the Parquet files of its tables."""

    row: dict[str, Any]
    about: dict[str, Any]
    files: dict[str, Path]


def keep_snapshots(root: Path, dataset: str) -> None:
    """Write what the folder lacks of a data set's revisions; what is there already is left alone.

    Raises StoreError where the disk refuses.
    """
    folder = root / dataset / FOLDER
    with manifest.reading(root) as connection:
        rows = as_dicts(connection.execute("SELECT * FROM revisions WHERE dataset = ? ORDER BY revision", [dataset]))
        (about,) = as_dicts(
            connection.execute(
                "SELECT * EXCLUDE (dataset, source, revision) FROM datasets WHERE dataset = ?", [dataset]
            )
        )
        problems = as_dicts(
            connection.execute("SELECT * FROM failures WHERE dataset = ? AND digest IS NULL ORDER BY ALL", [dataset])
        )
        with storing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for row in rows:
                text = as_text({**row, "about": about})
                head = folder / f"{row['revision']:05d}.json"
                if not (head.is_file() and same_moment(head, row)):
                    keep_tables(connection, folder, dataset, row["revision"])
                    write_text(head, text)  # the last: where it is, the tables are
                elif row is rows[-1] and head.read_text(encoding="utf-8") != text:
                    write_text(head, text)  # the layout's reader has learnt what masks mean
            if problems or (folder / PROBLEMS).is_file():
                write_text(folder / PROBLEMS, as_text(problems))


def same_moment(head: Path, row: dict[str, Any]) -> bool:
    """Whether a file tells of this very revision, and not of one of an earlier data set of the name."""
    try:
        told = json.loads(head.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return bool(told.get("created_at") == plain(row["created_at"]))


def keep_tables(connection: duckdb.DuckDBPyConnection, folder: Path, dataset: str, revision: int) -> None:
    """Write the tables of one revision; those without a row are left out."""
    for name, sql in TABLES.items():
        target = folder / f"{revision:05d}-{name}.parquet"
        if target.exists():
            target.unlink()
        if connection.execute(f"SELECT count(*) FROM ({sql})", [dataset, revision]).fetchall()[0][0]:
            with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
                literal = file.name.replace("'", "''")
                connection.execute(f"COPY ({sql}) TO '{literal}' (FORMAT parquet)", [dataset, revision])
                write_bytes(target, Path(file.name).read_bytes())


def read_snapshots(root: Path, dataset: str) -> Iterator[Revision]:
    """Yield the revisions that a data set's folder keeps, oldest first, up to the first that is missing."""
    for number, head in enumerate(sorted((root / dataset / FOLDER).glob("[0-9]*.json")), 1):
        try:
            row = json.loads(head.read_text(encoding="utf-8"))
        except ValueError:
            return
        if row.get("revision") != number:
            return
        files = {name: head.with_name(f"{number:05d}-{name}.parquet") for name in TABLES}
        about = row.pop("about", None) or {"layout": row.pop("layout")}
        yield Revision(row, about, {name: path for name, path in files.items() if path.is_file()})


def read_problems(root: Path, dataset: str) -> list[dict[str, Any]]:
    """Return what the last indexing could not read."""
    try:
        found: list[dict[str, Any]] = json.loads((root / dataset / FOLDER / PROBLEMS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return found


def forget_snapshots(root: Path, dataset: str) -> None:
    """Remove what the folder keeps of a data set that was removed; which versions it had stays."""
    for path in [*(root / dataset / FOLDER).glob("[0-9]*"), root / dataset / FOLDER / PROBLEMS]:
        if path.exists():
            path.unlink()


def as_text(value: Any) -> str:
    """Return rows as JSON text."""
    return json.dumps(value, default=plain, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
