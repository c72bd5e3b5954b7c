"""Parquet files with the images in them, as Hugging Face's data sets are published."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featstore.errors import DecodeError
from featstore.parquet_files import Table, ask, image_bytes, open_table
from featstore.records import ImageRecord, Meaning, Problem

from .base import require_folder
from .shards import only_shards, require_images, shards_of, split_named

__all__ = ["ParquetSource", "holds_images"]

PARQUET = (".parquet",)
IMAGES = ("image", "img", "jpg", "png", "rgb", "pixel_values", "photo", "picture")
MASKS = ("mask", "annotation", "segmentation", "semantic_segmentation", "seg", "label", "labels", "semantic")
INSTANCES, DEPTHS = ("instance", "instances", "instance_mask"), ("depth_map", "depth")
LABELS = ("label", "labels", "fine_label", "class", "cls", "category", "coarse_label")
"""Names of columns, the first that fits is taken; capital letters do not count."""


@dataclass(frozen=True)
class Columns:
    """Which column of a file is what."""

    image: str
    mask: str | None
    instance: str | None
    depth: str | None
    label: str | None


class ParquetSource:
    """Parquet files in a folder or below it, or one.

    Images are in a column of bytes, or of {bytes, path} as the library datasets writes them. A column ``label`` of numbers
    gets the names that the file's own notes have (``ClassLabel``). An image's name is ``<file without ending>/<row>``.
    """

    layout = "parquet"
    expects = (
        "Parquet files (train-00000-of-00005.parquet …), or one, with a column of images, and label, mask, depth_map"
    )
    holds: tuple[str, ...] = ("split", "label", "masks", "instances", "depth")
    home: Path | None = None

    def detect(self, folder: Path) -> bool:
        """Whether it is a Parquet file or a folder of such, the first of which holds images."""
        return only_shards(folder, PARQUET) and any(
            holds_images(path) for _, path in list(shards_of(folder, PARQUET))[:1]
        )

    def read(self, folder: Path) -> Iterator[ImageRecord | Problem]:
        """Yield images by file and row; a file that is damaged or has no column of images is a problem.

        Raises SourceError where there is no file, or none that holds an image.
        """
        if not folder.is_file():
            require_folder(folder)
        yield from require_images(
            folder, self, (item for file in shards_of(folder, PARQUET) for item in read_file(*file))
        )

    def meaning(self, folder: Path) -> Meaning:
        """Parquet files do not say what their masks and depth maps mean."""
        return Meaning()


def holds_images(path: Path) -> bool:
    """Whether a Parquet file has a column of images; True for a damaged one, of which reading tells more."""
    try:
        return columns_of(open_table(path)) is not None
    except DecodeError:
        return True
    except OSError:
        return False


def columns_of(table: Table) -> Columns | None:
    """Return which column is what; None where none holds files."""
    files = [name for name, kind in table.columns.items() if image_bytes(kind)]
    maps = (*MASKS, *INSTANCES, *DEPTHS)
    others = [name for name in files if name.lower() not in maps]
    image = pick(files, IMAGES) or (others[0] if others else None)
    if image is None:
        return None
    rest = [name for name in files if name != image]
    plain = [name for name, kind in table.columns.items() if kind.endswith("INT") or kind in ("INTEGER", "VARCHAR")]
    return Columns(image, pick(rest, MASKS), pick(rest, INSTANCES), pick(rest, DEPTHS), pick(plain, LABELS))


def pick(names: list[str], wanted: tuple[str, ...]) -> str | None:
    """Return the column whose name comes first among those wanted."""
    known = {name.lower(): name for name in reversed(names)}
    return next((known[word] for word in wanted if word in known), None)


def read_file(name: str, path: Path) -> Iterator[ImageRecord | Problem]:
    """Yield the images of one file; ``name`` is its path below the folder that images' paths begin in."""
    try:
        table = open_table(path)
        columns = columns_of(table)
        if columns is None:
            kinds = ", ".join(f"{column} {kind}" for column, kind in list(table.columns.items())[:6])
            yield Problem(name, "image", f"no column holds images: {kinds}")
            return
        labels = read_labels(path, table, columns.label)
        empty = {
            name: empty_rows(path, table, name) for name in (columns.mask, columns.instance, columns.depth) if name
        }
    except DecodeError as error:
        yield Problem(name, "image", str(error))
        return
    except OSError as error:
        yield Problem(name, "image", f"{path.name} cannot be read: {error.strerror}")
        return
    split, digits = split_named(name), len(str(table.rows - 1))  # so that names sort as rows do
    for row in range(table.rows):
        maps = (columns.mask, columns.instance, columns.depth)
        at = [f"{name}::{row}/{c}" if c and row not in empty[c] else None for c in maps]
        yield ImageRecord(
            f"{name[: -len(PARQUET[0])]}/{row:0{digits}d}",
            f"{name}::{row}/{columns.image}",
            split=split,
            splits=(f"parquet/{split}",) if split else (),
            label=labels[row] if labels else None,
            mask_path=at[0],
            instance_path=at[1],
            depth_path=at[2],
        )


def quoted(name: str) -> str:
    """Return a column's name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def read_labels(path: Path, table: Table, column: str | None) -> list[str | None] | None:
    """Return each row's label: its word, the class that the file's notes call its number, else the number."""
    if column is None:
        return None
    names = class_names(table.notes.get("huggingface", ""), column)
    return [as_label(row[0], names) for row in ask(path, f"SELECT {quoted(column)} FROM read_parquet(?)")]


def as_label(value: Any, names: list[str]) -> str | None:
    """Return a label in words; a number below zero is that of an image without one."""
    if isinstance(value, int):
        return None if value < 0 else names[value] if value < len(names) else str(value)
    return (value or "").strip() or None


def class_names(notes: str, column: str) -> list[str]:
    """Return the names of a column's classes, as the library datasets notes them in a file; none where it does not."""
    try:
        names = json.loads(notes)["info"]["features"][column]["names"]
    except (ValueError, KeyError, TypeError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def empty_rows(path: Path, table: Table, column: str) -> frozenset[int]:
    """Return the rows without a file in a column: a split for the evaluation has no masks."""
    value = quoted(column) if table.columns[column] == "BLOB" else f"{quoted(column)}.bytes"
    sql = f"SELECT file_row_number FROM read_parquet(?, file_row_number = true) WHERE {value} IS NULL"
    return frozenset(row[0] for row in ask(path, sql))
