"""What folders tell of their versions and denoisers beside the numbers: ``version.json``, ``denoiser.json``."""

import json
from pathlib import Path
from typing import Any

import duckdb

from . import manifest
from .manifest import plain
from .revisions import as_dicts
from .root import version_folder
from .sealing import storing, write_text

__all__ = ["DENOISER", "REMOVED", "VERSION", "keep_denoiser", "keep_notes", "read_note"]

VERSION, DENOISER, REMOVED = "version.json", "denoiser.json", ".index/removed.json"


def keep_notes(root: Path, dataset: str) -> None:
    """Bring every version's note up to date; versions that were removed say so. Raises StoreError where the disk refuses."""
    with manifest.reading(root) as connection:
        notes: dict[Path, Any] = {
            folder / VERSION: note for folder, note in notes_of(connection, root, dataset) if folder.is_dir()
        }
        gone = as_dicts(connection.execute("SELECT * FROM removed WHERE dataset = ? ORDER BY ALL", [dataset]))
    if gone or (root / dataset / REMOVED).is_file():
        notes[root / dataset / REMOVED] = gone
    for path, note in notes.items():
        text = as_text(note)
        with storing(path):
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text(path, text)


def notes_of(connection: duckdb.DuckDBPyConnection, root: Path, dataset: str) -> list[tuple[Path, dict[str, Any]]]:
    """Return the note of each version of a data set and of each that was removed, with its folder."""
    known = as_dicts(
        connection.execute("SELECT * EXCLUDE (version_id, recipe) FROM versions WHERE dataset = ?", [dataset])
    )
    removed = as_dicts(connection.execute("SELECT * FROM removed WHERE dataset = ?", [dataset]))
    notes = []
    for row in [*known, *removed]:
        key = [dataset, row["backbone"], row["digest"]]
        builds = connection.execute(
            "SELECT * FROM builds WHERE dataset = ? AND backbone = ? AND digest = ? ORDER BY build_id", key
        )
        note = row | {"builds": as_dicts(builds)}
        failures = connection.execute(
            "SELECT * FROM failures WHERE dataset = ? AND digest = ? ORDER BY rowid", [dataset, row["digest"]]
        )
        note |= {"failures": as_dicts(failures)}
        told = connection.execute(
            "SELECT * FROM evaluations WHERE dataset = ? AND backbone = ? AND digest = ? ORDER BY ALL", key
        )
        evaluations = as_dicts(told)
        note |= {"evaluations": evaluations} if evaluations else {}
        notes.append((version_folder(root, *key), note))
    return notes


def keep_denoiser(root: Path, run: str) -> None:
    """Write the row of a denoiser and the images of its training beside its file."""
    with manifest.reading(root) as connection:
        rows = as_dicts(connection.execute("SELECT * FROM denoisers WHERE run = ?", [run]))
        images = connection.execute(
            "SELECT part, sha256 FROM denoiser_images WHERE run = ? ORDER BY part DESC, sha256", [run]
        ).fetchall()
    for row in rows:
        note = row | {part: [sha256 for own, sha256 in images if own == part] for part in ("train", "heldout")}
        path = (root / row["path"]).parent / DENOISER
        if path.parent.is_dir():
            with storing(path):
                write_text(path, as_text(note))


def read_note(path: Path) -> Any:
    """Return a note, None where there is none or it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def as_text(value: Any) -> str:
    """Return a note as JSON text."""
    return json.dumps(value, default=plain, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
