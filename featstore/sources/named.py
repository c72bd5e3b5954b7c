"""A table that names images wherever they lie: paths, URLs, files inside others."""

import posixpath
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from featstore.errors import InputError, SourceError
from featstore.members import container_of
from featstore.places import as_remote, images_folder, is_url, path_of
from featstore.records import ImageRecord, Meaning, Problem
from featstore.transport import READ_ONLY, parts

from .base import is_text, nothing_found, unreadable_name
from .files import distinct, names_in
from .folder import SPLITS
from .tables import Row, read_rows

__all__ = ["ListSource"]

ENDINGS = (".txt", ".csv", ".tsv", ".parquet")
LOOKED_AT = 20


class ListSource:
    """A ``.txt``, CSV or Parquet file; see ``tables.COLUMNS`` for what columns may be called.

    Relative paths begin in the table's folder; absolute ones and URLs of any file system that featstore reads stand for
    themselves. Without a column ``image_id`` an image's name is its path or URL, without the protocol.
    """

    layout = "list"
    expects = (
        "a .txt with a path or URL a line, or a .csv or .parquet with a column image (path, uri, url, filename) and, if "
        "wanted, image_id, split, label, mask, depth"
    )
    holds: tuple[str, ...] = ("split", "label", "masks", "instances", "depth")
    home: Path | None = None

    def detect(self, folder: Path) -> bool:
        """Whether it is a file that may be such a table; a folder is none."""
        return folder.name.lower().endswith(ENDINGS) and folder.is_file()

    def read(self, folder: Path) -> Iterator[ImageRecord | Problem]:
        """Yield images in the table's order; a URL that must not be kept and a name that comes twice are problems.

        Raises SourceError where there is no table, or none of the images that it names first is there.
        """
        table = table_in(folder, self)
        rows = list(read_rows(table))
        base = images_folder(table)
        require_some(table, base, [row["image"] for row in rows[:LOOKED_AT] if "image" in row])
        empty = True
        for item in distinct(describe(table, base, number, row) for number, row in enumerate(rows, 1)):
            empty = False
            yield item
        if empty:
            raise nothing_found(folder, self)

    def meaning(self, folder: Path) -> Meaning:
        """Tables do not say what masks and depth maps mean."""
        return Meaning()


def table_in(source: Path, reader: ListSource) -> Path:
    """Return the table: the file given, or the only one in the folder given."""
    if source.is_file():
        return source
    found = [name for name in names_in(source)[1] if name.lower().endswith(ENDINGS)]
    if len(found) != 1:
        told = f"holds {len(found)} tables ({', '.join(found[:5])}): give one of them" if found else "holds no table"
        raise SourceError(f"{source} {told}; layout list expects {reader.expects}")
    return source / found[0]


def require_some(table: Path, base: Path, paths: list[str]) -> None:
    """Raise SourceError where none of the first images, all of them beside a local table, is there; say where they are."""
    local = [path for path in paths if not is_url(path)]
    if not local or len(local) < len(paths) or as_remote(base) is not None:
        return
    if any(Path(container_of(str(base / path))).exists() for path in local):
        return
    above = next((place for place in base.parents if (place / local[0]).exists()), None)
    hint = f"; they are below {above}: put the table there" if above else ""
    raise SourceError(f"none of the images that {table} names first is there ({base / local[0]}){hint}")


def describe(table: Path, base: Path, number: int, row: Row) -> ImageRecord | Problem:
    """Return a row's record, or what is wrong with it; no URL that holds a secret is repeated."""
    if "image" not in row:
        return Problem(table.name, "image", f"row {number} names no image")
    try:
        paths = {
            name: located(base, row[name]) if name in row else None for name in ("image", "mask", "instance", "depth")
        }
    except InputError as error:
        return Problem(table.name, "image", f"row {number}: {error}", row.get("image_id"))
    path = str(paths["image"])
    if not is_text(path):
        return unreadable_name(path)
    split = row.get("split")
    split = SPLITS.get(split.lower(), split) if split else None
    return ImageRecord(
        row.get("image_id") or name_of(path),
        path,
        split=split,
        splits=(f"list/{split}",) if split else (),
        label=row.get("label"),
        mask_path=paths["mask"],
        instance_path=paths["instance"],
        depth_path=paths["depth"],
    )


def located(base: Path, text: str) -> str:
    """Return a path as the manifest keeps it; raises InputError for a URL with credentials or a signature."""
    if is_url(text):
        place = path_of(text)
        remote = as_remote(place)
        # Web addresses are written with escapes, paths are not.
        return str(place) if remote is None or remote.protocol not in READ_ONLY else unquote(remote.url)
    remote = as_remote(base)
    if remote is not None and ".." in text.split("/"):
        return remote.base + posixpath.normpath(f"/{parts(remote.url)[2]}/{text}")
    return text


def name_of(path: str) -> str:
    """Return a path's own name for its image."""
    return (path.partition("://")[2] if is_url(path) else path).lstrip("/")
