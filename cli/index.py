"""``featstore index``."""

from pathlib import Path

import click

from featstore.index import IndexReport, index_dataset

from . import options
from .layouts import LayoutCommand
from .printing import emit_json, plural
from .progress import Progress

__all__ = ["index", "report_index", "run_index"]

SHOWN = 10
FAILED = 3


@click.command(cls=LayoutCommand)
@click.argument("name")
@options.source_options
@options.root
@options.as_json
def index(name: str, source: Path | None, layout: str | None, root: Path, as_json: bool) -> int:
    """Index the images of a folder as data set NAME, in the manifest.

    \b
    Examples:
      featstore index voc --source VOCdevkit
      featstore index ade --source ADEChallengeData2016
      featstore index video --source clips --layout frames

    Indexing again reads only files whose size or time changed, and records a new revision where anything did. What
    cannot be read is listed in the table `failures` with the reason, and the exit code is 3.
    """
    report = run_index(root, name, source, layout, quiet=as_json)
    if as_json:
        emit_json(vars(report) | {"problems": [vars(problem) for problem in report.problems]})
    else:
        report_index(report)
    return FAILED if report.problems else 0


def run_index(root: Path, name: str, source: Path | None, layout: str | None, quiet: bool) -> IndexReport:
    """Index with a progress bar."""
    with Progress("indexing", quiet=quiet) as progress:
        return index_dataset(root, name, source, layout, progress.reach)


def report_index(report: IndexReport) -> None:
    """Say what indexing found."""
    where = f"{report.dataset} ({report.layout}) from {report.source}"
    click.echo(f"indexed {where}: {plural(report.images, 'image')}, revision {report.revision}")
    click.echo(
        f"  {report.added:,} added, {report.changed:,} changed, {report.removed:,} removed, "
        f"{plural(report.hashed, 'file')} read"
    )
    for note in report.notes:
        click.echo(f"  note: {note}", err=True)
    for problem in report.problems[:SHOWN]:
        click.echo(f"  {problem.step}: {problem.path}: {problem.error}", err=True)
    if len(report.problems) > SHOWN:
        click.echo(f"  … and {len(report.problems) - SHOWN:,} more", err=True)
    if report.problems:
        count = plural(len(report.problems), "problem")
        click.echo(f'  {count}: featstore query {report.dataset} "SELECT * FROM failures"', err=True)
