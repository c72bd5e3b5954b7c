"""``featstore ls``."""

from pathlib import Path

import click

from featstore.query import restricted

from . import options
from .printing import emit_json, plain, table_text

__all__ = ["ls"]

DATASETS = (
    "SELECT dataset, layout, revision, (SELECT count(*) FROM images i WHERE i.dataset = d.dataset) AS images, "
    "(SELECT count(*) FROM failures f WHERE f.dataset = d.dataset AND f.digest IS NULL) AS problems, source "
    "FROM datasets d ORDER BY dataset"
)
VERSIONS = (
    "SELECT c.dataset || '/' || c.backbone || '/' || c.version AS version, c.method, c.tag, c.stored || '/' || c.images "
    "AS images, c.failed, if(v.recipe->>'$.backbone.resize' = 'keep', 'near ', '') || "
    "v.grid_height || '×' || v.grid_width || '×' || v.channels || coalesce(', fine ' || "
    "(v.recipe->>'$.method.clean_grid[0]') || '×' || (v.recipe->>'$.method.clean_grid[1]'), '') AS shape, "
    "(SELECT coalesce(sum(bytes), 0) FROM shards s WHERE s.dataset = v.dataset AND s.backbone = v.backbone "
    "AND s.digest = v.digest)::BIGINT AS bytes, (SELECT string_agg(DISTINCT codec, ', ' ORDER BY codec) FROM shards s "
    "WHERE s.dataset = v.dataset AND s.backbone = v.backbone AND s.digest = v.digest) AS codec, "
    "c.heldout_r2, c.digest FROM coverage c JOIN versions v ON v.dataset = c.dataset AND v.backbone = c.backbone "
    "AND 'v' || v.number = c.version ORDER BY v.dataset, v.backbone, v.number"
)


@click.command()
@click.argument("name", required=False)
@options.root
@options.as_json
def ls(name: str | None, root: Path, as_json: bool) -> None:
    """List data sets and versions.

    Those of data set NAME alone where it is given.

    \b
    Examples:
      featstore ls
      featstore ls voc --json
    """
    with restricted(root, name) as connection:
        answers = {}
        for title, sql in (("datasets", DATASETS), ("versions", VERSIONS)):
            cursor = connection.execute(sql)
            answers[title] = [column[0] for column in cursor.description or []], cursor.fetchall()
    if as_json:
        emit_json(
            {t: [plain(dict(zip(names, row, strict=True))) for row in rows] for t, (names, rows) in answers.items()}
        )
        return
    names, rows = answers["datasets"]
    click.echo(table_text(names, rows) if rows else "no data set is indexed yet: featstore index NAME --source DIR")
    names, rows = answers["versions"]
    click.echo()
    click.echo(table_text(names, rows) if rows else "no version is built yet: featstore build NAME")
