"""Damage to a store, planted without featstore's help."""

from pathlib import Path

import duckdb
import h5py


def shards(root: Path) -> list[Path]:
    return sorted(root.rglob("*.h5"))


def change(root: Path, sql: str) -> None:
    """Change the manifest with duckdb alone."""
    with duckdb.connect(str(root / "manifest.duckdb")) as connection:
        connection.execute(sql)


def flip(path: Path, place: int, bit: int = 0) -> None:
    """Turn one bit over, in place."""
    with path.open("r+b") as file:
        file.seek(place)
        value = file.read(1)[0]
        file.seek(place)
        file.write(bytes([value ^ 1 << bit]))


def place_of(path: Path, name: str, row: int) -> int:
    """Where a sample begins in its file."""
    with h5py.File(path) as file:
        return int(file[name].id.get_chunk_info(row).byte_offset)
