"""The tables and views of the manifest, made from the migrations in schemas/."""

import duckdb

from featstore.manifest import migrations

__all__ = ["manifest_page"]

HEAD = """# The manifest's tables

Made by `python docs/generate.py` from [`schemas/`](../schemas): change it there. What they are for, and how to read them with
DuckDB alone: [the store's format](store-format.md). This is schema {number}.

Times are UTC, without a zone. `featstore query voc` shows the same list; there a table has the rows of one data set, and
`images` and `objects` are those of its newest revision (here `current_images` and `current_objects`).
"""
ORDER = (
    *("datasets", "revisions", "images", "objects", "versions", "shards", "features", "failures", "builds", "removed"),
    *("denoisers", "denoiser_images", "evaluations", "schema_migrations"),
)
VIEWS = ("stored", "coverage", "latest", "current_images", "current_objects")
SOURCES = {"current_objects": ("objects",), "current_images": ("images",)}
JOINED = ("stored", "images", "versions", "features", "shards")
Meanings = dict[tuple[str, str], str]


def manifest_page() -> str:
    """Return docs/manifest.md; raises LookupError where a table is missing in ORDER and VIEWS."""
    with duckdb.connect() as connection:
        for _, _, sql in migrations():
            connection.execute(sql)
        wholes: dict[str, str] = dict(
            connection.execute(
                "SELECT table_name, comment FROM duckdb_tables() WHERE NOT internal "
                "UNION SELECT view_name, comment FROM duckdb_views() WHERE NOT internal"
            ).fetchall()
        )
        if wholes.keys() != {*ORDER, *VIEWS}:
            raise LookupError(f"docs/manifest_page.py does not place {wholes.keys() ^ {*ORDER, *VIEWS}}")
        meanings: Meanings = {
            (table, column): text
            for table, column, text in connection.execute(
                "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE comment IS NOT NULL"
            ).fetchall()
        }
        parts = [HEAD.format(number=migrations()[-1][0]), "## Tables\n"]
        parts += [section(connection, name, wholes[name], meanings) for name in ORDER]
        parts.append("## Views\n")
        parts += [section(connection, name, wholes[name], meanings) for name in VIEWS]
    return "\n".join(parts)


def section(connection: duckdb.DuckDBPyConnection, name: str, whole: str, meanings: Meanings) -> str:
    """Return the part of one table or view."""
    keys = connection.execute(
        "SELECT constraint_column_names FROM duckdb_constraints() WHERE table_name = ? "
        "AND constraint_type = 'PRIMARY KEY'",
        [name],
    ).fetchall()
    key = f" Key: {', '.join(f'`{column}`' for column in keys[0][0])}." if keys else ""
    lines = [f"### {name}\n", f"{whole[0].upper()}{whole[1:]}.{key}\n", "| column | type | meaning |", "|---|---|---|"]
    sources = (name, *SOURCES.get(name, JOINED)) if name in VIEWS else (name,)
    for column, kind, *_ in connection.execute(f"DESCRIBE {name}").fetchall():
        meaning = next(meanings[source, column] for source in sources if (source, column) in meanings)
        lines.append(f"| `{column}` | {kind} | {meaning.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"
