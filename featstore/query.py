"""SQL from outside: one SELECT, over the manifest only, nothing written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from .errors import NotInStoreError, QueryError
from .instances import attach, lent
from .manifest import first_line, is_current, patiently, require, upgrade

__all__ = ["check_dataset", "check_select", "document", "restricted", "select", "viewed"]

VIEWS = {
    "datasets": "SELECT * FROM manifest.datasets WHERE {dataset}",
    "revisions": "SELECT * FROM manifest.revisions WHERE {dataset}",
    "images": "SELECT * FROM manifest.current_images WHERE {dataset}",
    "objects": "SELECT * FROM manifest.current_objects WHERE {dataset}",
    "versions": "SELECT * FROM manifest.versions WHERE {dataset}",
    "shards": "SELECT * FROM manifest.shards WHERE {dataset}",
    "features": "SELECT * FROM manifest.features WHERE digest IN (SELECT digest FROM manifest.versions WHERE {dataset})",
    "failures": "SELECT * FROM manifest.failures WHERE {dataset}",
    "stored": "SELECT * FROM manifest.stored WHERE {dataset}",
    "coverage": "SELECT * FROM manifest.coverage WHERE {dataset}",
    "latest": "SELECT * FROM manifest.latest WHERE {dataset}",
    "builds": "SELECT * FROM manifest.builds WHERE {dataset}",
    "removed": "SELECT * FROM manifest.removed WHERE {dataset}",
    "evaluations": "SELECT e.dataset, e.backbone, 'v' || v.number AS version, v.method, e.* EXCLUDE (dataset, backbone) "
    "FROM manifest.evaluations e JOIN manifest.versions v USING (dataset, backbone, digest) WHERE {dataset}",
    "denoisers": "SELECT * FROM manifest.denoisers WHERE {dataset}",
    "denoiser_images": "SELECT * FROM manifest.denoiser_images WHERE run IN "
    "(SELECT run FROM manifest.denoisers WHERE {dataset})",
}
JOINS = ("stored", "coverage", "latest", "evaluations")
JOINED = ("stored", "images", "versions", "features", "shards")
"""Where the meaning of a view's column is told, the first that has the name."""
ALLOWED = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}


def check_select(sql: str) -> str:
    """Return ``sql`` if it is exactly one SELECT (or DESCRIBE, SUMMARIZE, EXPLAIN); raises QueryError otherwise."""
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryError(f"this SQL cannot be parsed: {first_line(str(error))}") from error
    if len(statements) != 1:
        raise QueryError(f"give one SELECT, not {len(statements)} statements")
    if statements[0].type not in ALLOWED:
        kind = statements[0].type.name.replace("_", " ")
        raise QueryError(f"{kind} is refused: queries only read (SELECT, DESCRIBE, SUMMARIZE, EXPLAIN)")
    return statements[0].query.strip().rstrip(";")


def check_condition(where: str) -> str:
    """Return ``where`` if it is one boolean SQL expression; raises QueryError otherwise.

    ``true) UNION ALL (SELECT …`` parses after WHERE but not inside a CAST, a second statement in neither: each of the two
    checks is passed by something that the other refuses.
    """
    check_select(f"SELECT 1 WHERE ({where}\n)")
    check_select(f"SELECT CAST(({where}\n) AS BOOLEAN)")
    return where


@contextmanager
def restricted(
    root: Path, dataset: str | None = None, writable: Path | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an in-memory DuckDB with the manifest attached read-only and every other file out of reach.

    Its views ``images``, ``objects``, ``versions``, ``stored`` … show ``dataset`` alone and its newest revision (all data
    sets where None); the whole history is ``manifest.images`` and so on. ``writable`` is one file that COPY may write.
    Raises NotInStoreError for an unknown data set.
    """
    path = require(root)
    connection = duckdb.connect(":memory:")
    try:
        attach_current(connection, root, path)
        if dataset is not None:
            check_dataset(connection, dataset)
        make_views(connection, dataset)
        if writable is not None:
            connection.execute(f"SET allowed_paths = ['{str(writable).replace(chr(39), chr(39) * 2)}']")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield connection
    finally:
        connection.close()


@contextmanager
def viewed(root: Path, dataset: str | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the manifest with the same views for SQL that is featstore's own: in a third of the time, nothing out of reach.

    Raises NotInStoreError for an unknown data set.
    """
    path = require(root)
    schema = "memory.of_" + ("all" if dataset is None else dataset.encode().hex())  # DuckDB's names have no case
    with lent() as connection:
        attach_current(connection, root, path)
        if dataset is not None:
            check_dataset(connection, dataset)
        try:  # an instance that was lent for this before has the views: they are bound when they are read
            connection.execute(f"USE {schema}")
        except duckdb.CatalogException:
            connection.execute(f"CREATE SCHEMA {schema}")
            connection.execute(f"USE {schema}")
            make_views(connection, dataset)
        yield connection


def attach_current(connection: duckdb.DuckDBPyConnection, root: Path, path: Path) -> None:
    """Attach a manifest read-only, brought up to date first where an older featstore made it."""
    patiently(lambda: connection.execute(attach(path)), path)
    if not is_current(connection, path, "manifest"):
        connection.execute("DETACH manifest")
        path = upgrade(root)
        patiently(lambda: connection.execute(attach(path)), path)


def make_views(connection: duckdb.DuckDBPyConnection, dataset: str | None) -> None:
    """Make the views of one data set, or of all."""
    condition = "dataset = '" + dataset.replace("'", "''") + "'" if dataset is not None else "true"
    for name, sql in VIEWS.items():
        connection.execute(f"CREATE VIEW {name} AS {sql.format(dataset=condition)}")


def check_dataset(connection: duckdb.DuckDBPyConnection, dataset: str) -> None:
    """Raise NotInStoreError, naming those there are, where the manifest does not list ``dataset``."""
    names = [row[0] for row in connection.execute("SELECT dataset FROM manifest.datasets ORDER BY 1").fetchall()]
    if dataset not in names:
        have = f"there are: {', '.join(names)}" if names else "none is indexed yet"
        raise NotInStoreError(f"no data set {dataset!r} here ({have}); featstore index {dataset} --source DIR adds it")


def select(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyConnection:
    """Run one checked SELECT on a restricted connection; raises QueryError with DuckDB's reason in one line."""
    checked = check_select(sql)
    try:
        return connection.execute(checked)
    except duckdb.Error as error:
        raise QueryError(first_line(str(error))) from error


def document(root: Path) -> list[tuple[str, str, str, str]]:
    """Return (table or view, column, type, comment) of everything that queries can use; column '' tells of the whole."""
    with restricted(root) as connection:
        comments = dict(
            connection.execute(
                "SELECT table_name, comment FROM duckdb_tables() WHERE database_name = 'manifest' AND comment IS NOT NULL "
                "UNION SELECT view_name, comment FROM duckdb_views() WHERE database_name = 'manifest' AND comment IS NOT NULL"
            ).fetchall()
        )
        columns = {
            (table, column): comment
            for table, column, comment in connection.execute(
                "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE database_name = 'manifest'"
            ).fetchall()
            if comment
        }
        spread = {
            column: text for name in reversed(JOINED) for (table, column), text in columns.items() if table == name
        }
        rows = []
        made = {
            row[0] for row in connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        }
        for name in [name for name in VIEWS if name in made]:
            rows.append((name, "", "", comments.get(f"current_{name}") or comments.get(name, "")))
            meant = spread if name in JOINS else {}
            for column, kind, *_ in connection.execute(f"DESCRIBE {name}").fetchall():
                rows.append((name, column, kind, columns.get((name, column)) or meant.get(column, "")))
        return rows
