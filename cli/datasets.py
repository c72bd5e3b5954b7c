"""``featstore datasets``."""

from pathlib import Path
from typing import Any

import click

from featstore import sources
from featstore.errors import NotInStoreError
from featstore.query import restricted

from . import options
from .printing import emit_json, table_text

__all__ = ["datasets"]

DATASETS = """
    SELECT d.dataset, d.layout, d.revision, coalesce(i.images, 0) AS images, i.splits, coalesce(i.labels, 0) AS labels,
           coalesce(i.masks, 0) AS masks, coalesce(i.depth, 0) AS depth,
           (SELECT count(*) FROM objects o WHERE o.dataset = d.dataset) AS boxes,
           (SELECT count(*) FROM versions v WHERE v.dataset = d.dataset) AS versions,
           (SELECT count(*) FROM failures f WHERE f.dataset = d.dataset AND f.digest IS NULL) AS problems,
           len(d.mask_classes) AS mask_classes, d.mask_ignored, d.mask_coding, d.depth_metres, d.source
    FROM datasets d LEFT JOIN (
        SELECT dataset, count(*) AS images, histogram(coalesce(split, 'none')) AS splits, count(DISTINCT label) AS labels,
               count(mask_path) AS masks, count(depth_path) AS depth
        FROM images GROUP BY dataset
    ) i USING (dataset) ORDER BY d.dataset
"""
SHOWN = ("dataset", "layout", "revision", "images", "splits", "labels", "masks", "depth", "boxes", "versions", "source")
WIDTH = 110


@click.command()
@click.argument("name", required=False)
@options.root
@options.as_json
def datasets(name: str | None, root: Path, as_json: bool) -> None:
    """List the layouts that can be indexed, and the data sets of the store.

    Of data set NAME alone where it is given.

    \b
    Examples:
      featstore datasets
      featstore datasets voc --json
    """
    broken: list[str] = []
    layouts = [] if name else [described(source) for source in sources.available(broken.append)]
    found = indexed(root, name)
    if as_json:
        emit_json({"layouts": layouts, "not_available": broken, "datasets": found})
        return
    if not name:
        show_layouts(layouts, broken)
    if found:
        click.echo(table_text(SHOWN, [[cell(row, column) for column in SHOWN] for row in found]))
    else:
        click.echo(f"no data set is indexed in {root} yet: featstore index NAME --source DIR")


def described(source: sources.Source) -> dict[str, Any]:
    """Return a layout as JSON tells it."""
    package = source.package if isinstance(source, sources.PlugIn) else "featstore"
    return {"layout": source.layout, "holds": source.holds, "expects": source.expects, "package": package}


def indexed(root: Path, name: str | None) -> list[dict[str, Any]]:
    """Return the data sets of a store; none where there is no store and none is asked for by name."""
    try:
        with restricted(root, name) as connection:
            cursor = connection.execute(DATASETS)
            names = [column[0] for column in cursor.description or []]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    except NotInStoreError:
        if name is not None:
            raise
        return []


def show_layouts(layouts: list[dict[str, Any]], broken: list[str]) -> None:
    """Print what can be indexed."""
    formatter = click.HelpFormatter(width=WIDTH)
    with formatter.section("Layouts"):
        formatter.write_dl([(entry["layout"], told(entry)) for entry in layouts])
    click.echo(formatter.getvalue())
    for line in broken:
        click.echo(f"not available: {line}", err=True)


def told(entry: dict[str, Any]) -> str:
    """Return what a layout expects and holds."""
    holds = f"; holds {', '.join(entry['holds'])}" if entry["holds"] else ""
    package = "" if entry["package"] == "featstore" else f" (package {entry['package']})"
    return f"{entry['expects']}{holds}{package}"


def cell(row: dict[str, Any], column: str) -> Any:
    """Return one cell; counts of splits as text, largest first."""
    if column != "splits":
        return row[column]
    counts = sorted((row["splits"] or {}).items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{split} {count:,}" for split, count in counts)
