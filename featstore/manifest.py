"""The manifest: one DuckDB file, opened for a moment at a time, migrated forward by numbered SQL files."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb

from .errors import CorruptError, LockedError, NewerError, NotInStoreError, StoreError
from .instances import attach, lent
from .places import as_remote
from .rows import insert, plain
from .transport import READ_ONLY
from .working_copy import changed_copy, derived_copy, require_copy

__all__ = [
    "insert",
    "interruptible",
    "is_current",
    "manifest_path",
    "now",
    "patiently",
    "plain",
    "reading",
    "require",
    "upgrade",
    "writing",
]

FILE = "manifest.duckdb"
STORAGE = {"storage_compatibility_version": "v1.2.0"}  # so that older DuckDB releases open it too
WAIT = 30.0
HELD = threading.local()
BUSY = ("Could not set lock", "different configuration", "Unique file handle conflict", "already attached")


def manifest_path(root: Path) -> Path:
    """Return where the manifest of ``root`` lies."""
    return root / FILE


def now() -> datetime:
    """Return the time in UTC without a zone, as the manifest keeps it."""
    return datetime.now(UTC).replace(tzinfo=None)


def require(root: Path) -> Path:
    """Return the local path of the manifest, a remote one's copy; raises NotInStoreError where there is none yet."""
    path = manifest_path(root)
    problem = f"there is no store at {root}: index a data set first (featstore index NAME --source DIR)"
    remote = as_remote(path)
    if remote is not None:
        return require_copy(remote, problem)
    if not path.is_file():
        raise NotInStoreError(problem)
    return path


@cache
def migrations() -> list[tuple[int, str, str]]:
    """Return (number, name, SQL) of every migration that this program knows, in order."""
    found = [(int(f.name[:4]), f.name, f) for f in files("featstore.schemas").iterdir() if re.match(r"\d{4}_", f.name)]
    return [
        (number, name, file.read_text(encoding="utf-8")) for number, name, file in sorted(found, key=lambda m: m[0])
    ]


def patiently(connect: Any, path: Path, wait: float = WAIT) -> Any:
    """Call ``connect`` until no other process holds the manifest; raises LockedError naming the holder after ``wait``."""
    deadline = time.monotonic() + wait
    while True:
        try:
            return connect()
        except duckdb.Error as error:
            text = str(error)
            if not any(word in text for word in BUSY):
                if isinstance(error, duckdb.SerializationException) or "not a valid DuckDB" in text:
                    raise CorruptError(
                        f"{path} is damaged ({first_line(text)}): featstore manifest rebuild makes it again"
                    ) from error
                raise StoreError(f"cannot open {path}: {first_line(text)}") from error
            if time.monotonic() >= deadline:
                held = re.search(r"held in (.+?)\.? See", text)
                who = held.group(1) if held else "another process"
                raise LockedError(f"the manifest {path} is held by {who}; wait for it or end it") from error
            time.sleep(0.05)


def first_line(text: str) -> str:
    """Return in one line what a DuckDB message says before it shows the place, what may have been meant too; no category."""
    said = " ".join(text.strip().partition("\n\n")[0].split())
    return re.sub(r"^[A-Z][A-Za-z ]+ Error: ", "", said) or "no reason given"


def reason(error: duckdb.Error) -> str:
    """Return what the disk said, out of what DuckDB makes of it."""
    said = re.search(r"(No space left on device|File too large|Read-only file system|Input/output error)", str(error))
    return said.group(1) if said else first_line(str(error))


def schema(connection: duckdb.DuckDBPyConnection, path: Path, catalog: str | None = None) -> int:
    """Return the number of the last migration that an open manifest has had, 0 for none.

    ``catalog`` is the name under which it is attached. Raises NewerError where this program does not know that schema yet.
    """
    table = "schema_migrations" if catalog is None else f"{catalog}.schema_migrations"
    try:  # a look into duckdb_tables() first would take several times as long
        done = int(connection.execute(f"SELECT coalesce(max(number), 0) FROM {table}").fetchall()[0][0])
    except duckdb.CatalogException:
        done = 0
    newest = migrations()[-1][0]
    if done > newest:
        raise NewerError(f"{path} has schema {done}, newer than this featstore knows ({newest}): upgrade featstore")
    return done


def is_current(connection: duckdb.DuckDBPyConnection, path: Path, catalog: str | None = None) -> bool:
    """Whether an open manifest has the newest schema; raises NewerError as ``schema`` does."""
    return schema(connection, path, catalog) == migrations()[-1][0]


def upgrade(root: Path) -> Path:
    """Bring the manifest of an older featstore to the newest schema and return its path, as ``require`` does.

    Of a remote one that can only be read, the copy. Raises StoreError where it may not be written.
    """
    remote = as_remote(manifest_path(root))
    try:
        if remote is not None and remote.protocol in READ_ONLY:
            return derived_copy(remote, f"schema-{migrations()[-1][0]}", migrate_file)
        with writing(root):
            pass
        return require(root)
    except (LockedError, NewerError):
        raise
    except StoreError as error:
        raise StoreError(
            f"{manifest_path(root)} was made by an older featstore and cannot be brought up to date: {error}; "
            "do so once where it can be written, or copy the store"
        ) from error


def migrate(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Bring an open manifest to the newest schema, each migration in a transaction of its own."""
    done = schema(connection, path)
    for number, name, sql in migrations():
        if number > done:
            connection.begin()
            connection.execute(sql)
            connection.execute("INSERT INTO schema_migrations VALUES (?, ?, ?)", [number, name, now()])
            connection.commit()


def migrate_file(path: Path) -> None:
    """Bring a manifest that nobody else has open to the newest schema."""
    connection = duckdb.connect(str(path), config=dict(STORAGE))
    try:
        migrate(connection, path)
    finally:
        connection.close()


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C be KeyboardInterrupt: DuckDB, where it hears it in the middle of a statement, makes it a RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        if str(error) == "Query interrupted":
            raise KeyboardInterrupt from error
        raise


@contextmanager
def writing(root: Path, create: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the manifest for one transaction: committed on leaving, rolled back where the block raises.

    The manifest is created or migrated first where needed; a remote one is changed in a copy, whose upload is the commit.
    ``create`` False is for what only goes on where there was one: a disk may have gone in the meantime, and what lies in its
    place is another. Raises LockedError, StoreError (also where the disk is full), CorruptError.
    """
    held: dict[Path, duckdb.DuckDBPyConnection] = getattr(HELD, "connections", {})
    if root in held:  # see ``committing``
        yield held[root]
        return
    remote = as_remote(manifest_path(root))
    with changed_copy(remote) if remote is not None else nullcontext(manifest_path(root)) as path:
        if not create and not path.exists():
            raise StoreError(f"{path} is gone: is its disk still there? The same command goes on once it is back")
        connection = patiently(lambda: duckdb.connect(str(path), config=dict(STORAGE)), path)
        try:
            migrate(connection, path)
            connection.begin()
            try:
                yield connection
            except BaseException:
                with suppress(
                    duckdb.Error
                ):  # nothing can be rolled back on a full disk; the log is thrown away instead
                    connection.rollback()
                raise
            connection.commit()
        except (duckdb.IOException, duckdb.FatalException) as error:
            raise StoreError(
                f"cannot write {path}: {reason(error)}; make room, and run the same command again"
            ) from error
        finally:
            with suppress(duckdb.Error):
                connection.close()


@contextmanager
def reading(root: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the manifest read-only; one of an older featstore is brought up to date first.

    Raises NotInStoreError where there is none, LockedError, StoreError, CorruptError.
    """
    path = require(root)
    with lent() as connection:
        patiently(lambda: connection.execute(attach(path)), path)
        connection.execute("USE manifest")
        if not is_current(connection, path):
            connection.execute("USE memory")
            connection.execute("DETACH manifest")
            path = upgrade(root)
            patiently(lambda: connection.execute(attach(path)), path)
            connection.execute("USE manifest")
        yield connection
