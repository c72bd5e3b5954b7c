"""Images of a data set or version, by the user's condition and order: found once, then paged and looked up by number."""

import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from featstore.errors import InputError, NotInStoreError, QueryError
from featstore.manifest import first_line, require
from featstore.places import images_folder
from featstore.query import check_condition, restricted
from featstore.versions import STATISTICS, Version, find_version

__all__ = ["SORTS", "Asked", "Listing", "Listings"]

FIRST = ("image_id", "path", "sha256", "width", "height", "split", "label", "mask_path")
"""Columns kept of an image; of a version's, where its features lie and their statistics, too."""
PLACES = ("shard", "shard_row", "variants")
SORTS = ("image_id", "width", "height", "bytes", "split", "label", *STATISTICS)
KEPT, FRESH, LIMIT = 4, 2.0, 20.0
"""Listings kept; seconds for which the manifest counts as unchanged; seconds that a condition may take."""


@dataclass(frozen=True)
class Asked:
    """What is to be listed.

    ``version`` is ``backbone/vN``, '' for all indexed images; ``sort`` a column, ``-`` before it for the largest first.
    """

    dataset: str
    version: str = ""
    where: str = ""
    sort: str = ""


@dataclass
class Listing:
    """Images found, numbered from 0 in order, in a small database of their own; the manifest is let go, so that builds go on.

    ``folder`` is where relative paths of images begin.
    """

    asked: Asked
    version: Version | None
    recipe: str
    folder: Path
    columns: tuple[str, ...]
    count: int
    connection: duckdb.DuckDBPyConnection
    opened: ExitStack
    lock: threading.Lock = field(default_factory=threading.Lock)

    def page(self, number: int, size: int) -> list[dict[str, Any]]:
        """Return the images of a page, from 0."""
        return self.rows("rowid >= ? AND rowid < ? ORDER BY rowid", [number * size, (number + 1) * size])

    def find(self, image_id: str) -> dict[str, Any]:
        """Return an image's row; raises NotInStoreError."""
        found = self.rows("image_id = ?", [image_id])
        if not found:
            where = self.version.name if self.version else f"data set {self.asked.dataset}"
            raise NotInStoreError(f"{where} holds no image {image_id!r}" + (" here" if self.asked.where else ""))
        return found[0]

    def rows(self, condition: str, given: list[Any]) -> list[dict[str, Any]]:
        """Return rows as dicts."""
        with self.lock:
            rows = self.connection.execute(f"SELECT rowid, * FROM found WHERE {condition}", given).fetchall()
        return [dict(zip(("n", *self.columns), row, strict=True)) for row in rows]


class Listings:
    """The listings used last, found again where the manifest has changed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.kept: OrderedDict[tuple[Asked, tuple[int, int]], Future[Listing]] = OrderedDict()
        self.lock = threading.Lock()
        self.looked, self.last = -FRESH, (0, 0)

    def stamp(self) -> tuple[int, int]:
        """Return what changes with the manifest."""
        with self.lock:
            if time.monotonic() - self.looked >= FRESH:
                status = require(self.root).stat()
                self.looked, self.last = time.monotonic(), (status.st_mtime_ns, status.st_size)
            return self.last

    def close(self) -> None:
        """Close all that are kept."""
        with self.lock:
            for promise in self.kept.values():
                if promise.done() and promise.exception() is None:
                    promise.result().opened.close()
            self.kept.clear()

    def get(self, asked: Asked) -> Listing:
        """Return a listing. Raises NotInStoreError for an unknown data set or version, QueryError, InputError, LockedError."""
        key = (asked, self.stamp())
        with self.lock:
            promise, mine = self.kept.get(key), False
            if promise is None:
                promise, mine = self.kept.setdefault(key, Future()), True
                while len(self.kept) > KEPT:
                    self.kept.popitem(last=False)  # its database is closed when the last request that uses it is done
            self.kept.move_to_end(key)
        if mine:
            try:
                promise.set_result(make_listing(self.root, asked))
            except BaseException as error:
                with self.lock:
                    self.kept.pop(key, None)
                promise.set_exception(error)
        return promise.result()


def make_listing(root: Path, asked: Asked) -> Listing:
    """Find the images of a listing."""
    condition = check_condition(asked.where) if asked.where.strip() else "true"
    with ExitStack() as stack:
        connection = stack.enter_context(restricted(root, asked.dataset))
        version = find_version(connection, f"{asked.dataset}/{asked.version}") if asked.version else None
        table = "images" if version is None else table_of(version)
        present = [row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {table}").fetchall()]
        columns = (*FIRST, *(() if version is None else (*PLACES, *STATISTICS)))
        order = order_of(asked.sort, present)
        found_by(
            connection,
            f"CREATE TEMP TABLE found AS SELECT {', '.join(columns)} FROM {table} "
            f"AS {'images' if version is None else 'stored'} WHERE ({condition}\n) ORDER BY {order}",
        )
        source = connection.execute("SELECT source FROM datasets").fetchall()[0][0]
        identity = [] if version is None else [version.version_id]
        recipe = (
            "{}" if version is None else one(connection, "SELECT recipe FROM versions WHERE version_id = ?", identity)
        )
        count = one(connection, "SELECT count(*) FROM found", [])
        connection.execute("DETACH manifest")
        return Listing(
            asked, version, str(recipe), images_folder(source), columns, int(count), connection, stack.pop_all()
        )


def table_of(version: Version) -> str:
    """Return the SQL of a version's images."""
    backbone = version.backbone.replace("'", "''")
    return f"(SELECT * FROM stored WHERE backbone = '{backbone}' AND version = 'v{version.number}')"


def order_of(sort: str, present: list[str]) -> str:
    """Return the SQL of an order; raises InputError for what cannot be sorted by."""
    column, descending = sort.removeprefix("-") or "image_id", sort.startswith("-")
    if column not in SORTS or column not in present:
        raise InputError(f"cannot sort by {column!r}: choose from {', '.join(c for c in SORTS if c in present)}")
    return f"{column} {'DESC' if descending else 'ASC'} NULLS LAST, image_id"


def found_by(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Run a statement that holds the user's condition; raises QueryError for a wrong one and for one that takes too long."""
    timer = threading.Timer(LIMIT, connection.interrupt)
    timer.start()
    try:
        connection.execute(sql)
    except (duckdb.InterruptException, RuntimeError) as error:
        raise QueryError(f"stopped after {LIMIT:g} s: make the condition simpler") from error
    except duckdb.Error as error:
        raise QueryError(first_line(str(error))) from error
    finally:
        timer.cancel()


def one(connection: duckdb.DuckDBPyConnection, sql: str, given: list[Any]) -> Any:
    """Return the one value of an answer."""
    return connection.execute(sql, given).fetchall()[0][0]
