"""``featstore manifest``."""

from pathlib import Path

import click

from featstore.manifest import require
from featstore.rebuild import RebuildReport, rebuild_manifest

from . import options
from .printing import emit_json, plural
from .progress import Progress

__all__ = ["manifest"]

WAIT = 24 * 3600.0


@click.group()
def manifest() -> None:
    """Restore the manifest, or tell where it is."""


@manifest.command()
@options.root
def path(root: Path) -> None:
    """Print where the manifest lies, for the duckdb command line.

    \b
    Example:
      duckdb -readonly "$(featstore manifest path)"
    """
    click.echo(str(require(root)))


@manifest.command()
@click.option("--wait", is_flag=True, help="Wait for a build in the same root instead of stopping.")
@options.dry_run
@options.root
@options.as_json
def rebuild(wait: bool, dry_run: bool, root: Path, as_json: bool) -> None:
    """Make a lost or broken manifest again from the shards and from the notes beside them.

    What it held comes back: data sets with every revision, boxes, versions with numbers and tags, features, failures,
    builds, denoisers. The old file, where there is one, is kept under another name.

    \b
    Examples:
      featstore manifest rebuild --dry-run
      featstore manifest rebuild
      featstore verify
    """
    with Progress("reading", unit="shard", quiet=as_json) as progress:
        report = rebuild_manifest(root, dry_run, WAIT if wait else 0.0, progress.advance)
    if as_json:
        emit_json(vars(report))
    else:
        report_rebuild(report)


def report_rebuild(report: RebuildReport) -> None:
    """Say what was found, and what was wanting."""
    counts = ", ".join(
        plural(count, name.rstrip("s")) for name, count in report.rows.items() if count and name != "features"
    )
    click.echo(f"{'would make' if report.dry_run else 'made'} {report.manifest}: {counts}")
    click.echo(f"  {plural(report.rows.get('features', 0), 'sample')} listed")
    if report.kept:
        click.echo(f"  the old one is {report.kept}")
    for note in report.notes:
        click.echo(f"  {note}", err=True)
