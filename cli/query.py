"""``featstore query``."""

import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from featstore.errors import InputError
from featstore.query import check_select, document, restricted, select
from featstore.sealing import sealed

from . import options
from .printing import csv_text, json_text, plural, table_text

__all__ = ["query"]


WRITERS: dict[str, Callable[[list[str], list[tuple[Any, ...]]], str]] = {
    "table": table_text,
    "csv": csv_text,
    "json": json_text,
}


@click.command()
@click.argument("name")
@click.argument("sql", required=False)
@click.option(
    "--format",
    "kind",
    type=click.Choice([*WRITERS, "parquet"]),
    default="table",
    show_default=True,
    help="How rows are written.",
)
@click.option("--output", type=options.Place(), metavar="FILE", help="Write to a file, or a URL.")
@options.root
def query(name: str, sql: str | None, kind: str, output: Path | None, root: Path) -> None:
    """Ask SQL what is in the store.

    NAME is a data set, or 'all'. One SELECT in DuckDB's dialect; nothing can be written and no other file read. Without SQL
    it lists the tables, their columns and what they mean.

    \b
    Examples:
      featstore query voc "SELECT split, count(*) FROM images GROUP BY split"
      featstore query voc "SELECT image_id, heldout_r2 FROM stored ORDER BY heldout_r2 LIMIT 5"
      featstore query voc "SELECT class, count(*) FROM objects GROUP BY class" --format csv
    """
    dataset = None if name == "all" else name
    if sql is None:
        rows = [(table, column, type_, text) for table, column, type_, text in document(root)]
        click.echo(table_text(["table", "column", "type", "meaning"], rows))
        return
    check_select(sql)
    if kind == "parquet":
        write_parquet(root, dataset, sql, output)
        return
    with restricted(root, dataset) as connection:
        answer = select(connection, sql)
        columns = [column[0] for column in answer.description or []]
        rows = answer.fetchall()
    text = WRITERS[kind](columns, rows)
    if output is not None:
        with sealed(output.absolute()) as temporary:
            temporary.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")
        click.echo(f"wrote {plural(len(rows), 'row')} to {output}", err=True)
    else:
        click.echo(text, nl=not text.endswith("\n"))


def write_parquet(root: Path, dataset: str | None, sql: str, output: Path | None) -> None:
    """Write the answer as one Parquet file, or its bytes to a pipe."""
    if output is None:
        if sys.stdout.isatty():
            raise InputError("Parquet is not for a terminal: give --output FILE, or send it to a file or a pipe")
        with TemporaryDirectory() as folder:
            copy_parquet(root, dataset, sql, Path(folder) / "answer.parquet")
            sys.stdout.buffer.write((Path(folder) / "answer.parquet").read_bytes())
        return
    with sealed(output.absolute()) as temporary:
        copy_parquet(root, dataset, sql, temporary)
    click.echo(f"wrote {output}", err=True)


def copy_parquet(root: Path, dataset: str | None, sql: str, path: Path) -> None:
    """Have DuckDB write the answer to ``path``, the one file it may touch."""
    literal = str(path).replace("'", "''")
    with restricted(root, dataset, writable=path) as connection:
        select(connection, sql)  # so that a mistake in the query is told as such
        connection.execute(f"COPY ({check_select(sql)}\n) TO '{literal}' (FORMAT parquet)")
