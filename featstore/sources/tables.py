"""Rows of text, CSV and Parquet files as dicts of text, with the columns' names as layouts know them."""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from featstore.errors import DecodeError, SourceError
from featstore.parquet_files import ask, open_table
from featstore.places import is_url

from .files import read_text
from .folder import ENDINGS

__all__ = ["COLUMNS", "read_csv_rows", "read_rows"]

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "image": (
        *("image", "image_path", "path", "uri", "url", "filename", "file_name", "file", "filepath", "file_path"),
        *("img", "img_path", "image_uri", "image_url", "image_file", "rgb"),
    ),
    "image_id": ("image_id", "id", "key"),
    "split": ("split", "subset", "set", "partition"),
    "label": ("label", "class", "class_name", "category", "label_name"),
    "mask": ("mask", "mask_path", "mask_uri", "segmentation", "seg", "annotation"),
    "instance": ("instance", "instance_path", "instances"),
    "depth": ("depth", "depth_path", "depth_uri", "depth_map"),
}
"""What columns may be called, in capitals or not; of several the first that is there."""

NUMBERED = re.compile(r"(\S.*?\.\w+)\s+(-?\d+)")
Row = dict[str, str]


def read_rows(path: Path) -> Iterator[Row]:
    """Yield each row of a table as ``{column: text}``, by the keys of ``COLUMNS``; what is empty is left out.

    A ``.txt`` has a path or URL a line, and a label behind a tab, or behind blanks where every line ends in a number. Raises
    SourceError, naming the file, where it cannot be read or has no column of images.
    """
    ending = path.suffix.lower()
    if ending == ".parquet":
        yield from parquet_rows(path)
        return
    text = read_text(path)
    if text is None:
        raise SourceError(f"there is no file {path}")
    if "\0" in text:
        raise SourceError(f"{path} is no text: save it as UTF-8")
    yield from line_rows(text) if ending == ".txt" else csv_rows(path, text)


def line_rows(text: str) -> Iterator[Row]:
    """Yield the rows of a list, a line each."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    numbered = [NUMBERED.fullmatch(line) for line in lines]
    every = bool(lines) and all(numbered)
    for line, match in zip(lines, numbered, strict=True):
        image, _, label = line.partition("\t") if not (every and match) else (match[1], "", match[2])
        yield {"image": image.strip()} | ({"label": label.strip()} if label.strip() else {})


def read_csv_rows(text: str) -> list[list[str]]:
    """Return the cells of a CSV file, whose first line tells by which of comma, semicolon and tab they are parted."""
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    return [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(row)]


def csv_rows(path: Path, text: str) -> Iterator[Row]:
    """Yield the rows of a CSV file with a header, or without one where its first column names images and the second labels."""
    rows = read_csv_rows(text)
    if not rows:
        raise SourceError(f"{path} is empty")
    places = places_of(rows[0])
    if "image" not in places:
        if (
            not all(names_image(row[0]) for row in rows[:3])
            or len(rows[0]) > 2
            or names_image(rows[0][-1]) != (len(rows[0]) == 1)
        ):
            raise no_image(path, rows[0])
        places = {"image": 0} | ({"label": 1} if len(rows[0]) == 2 else {})
    else:
        rows = rows[1:]
    for row in rows:
        yield {name: row[place] for name, place in places.items() if place < len(row) and row[place]}


def parquet_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a Parquet file, its columns as text."""
    try:
        columns = list(open_table(path).columns)
        places = places_of(columns)
        if "image" not in places:
            raise no_image(path, columns)
        chosen = ", ".join(
            f'CAST("{columns[place].replace(chr(34), chr(34) * 2)}" AS VARCHAR)' for place in places.values()
        )
        rows = ask(path, f"SELECT {chosen} FROM read_parquet(?)")
    except DecodeError as error:
        raise SourceError(f"{path}: {error}") from error
    for row in rows:
        yield {name: value for name, value in zip(places, row, strict=True) if value}


def places_of(header: list[str]) -> dict[str, int]:
    """Return which column is which."""
    known = {name.strip().lower(): place for place, name in reversed(list(enumerate(header)))}
    found = {name: next((known[word] for word in words if word in known), None) for name, words in COLUMNS.items()}
    return {name: place for name, place in found.items() if place is not None}


def names_image(cell: str) -> bool:
    """Whether a cell is a URL or ends as images do."""
    return is_url(cell) or cell.lower().endswith(tuple(ENDINGS))


def no_image(path: Path, header: list[str]) -> SourceError:
    """Return the error for a table without a column of images."""
    told = ", ".join(header[:8])
    return SourceError(
        f"{path} has no column of images: it has {told}; call it one of {', '.join(COLUMNS['image'][:7])}"
    )
