"""A store's manifest as an older featstore left it: the first SQL files, and the rows that they have places for."""

from pathlib import Path

import duckdb

from featstore import manifest

__all__ = ["make_older"]

VERSION_ID = "(SELECT v.version_id FROM new.versions v WHERE v.dataset = t.dataset AND v.digest = t.digest)"


def make_older(root: Path, number: int) -> None:
    """Give the store at ``root`` a manifest of schema ``number`` (1 to 4) with the rows that its own holds."""
    old = root / "old.duckdb"
    with duckdb.connect(str(old), config=dict(manifest.STORAGE)) as connection:
        for known, name, sql in manifest.migrations()[:number]:
            connection.execute(sql)
            connection.execute("INSERT INTO schema_migrations VALUES (?, ?, now())", [known, name])
        connection.execute(f"ATTACH '{root / manifest.FILE}' AS new (READ_ONLY)")
        for (table,) in connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = 'old' AND table_name != 'schema_migrations'"
        ).fetchall():
            columns = [row[0] for row in connection.execute(f"DESCRIBE {table}").fetchall()]
            values = [VERSION_ID if table == "shards" and name == "version_id" else f"t.{name}" for name in columns]
            connection.execute(f"INSERT INTO {table} SELECT {', '.join(values)} FROM new.{table} t")
    old.replace(root / manifest.FILE)
