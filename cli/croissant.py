"""``featstore croissant``."""

from dataclasses import asdict
from pathlib import Path

import click

from featstore.croissant import Authorship, write_croissant

from . import options
from .printing import bytes_text, emit_json, plural
from .progress import Progress

__all__ = ["croissant"]


@click.command()
@click.argument("version")
@click.option(
    "--output",
    type=options.Place(local=True),
    metavar="FOLDER",
    help="Where the files go.  [default: the version's own]",
)
@click.option("--license", metavar="URL", help="Under which the features may be used.")
@click.option("--url", metavar="URL", help="The data set's page.")
@click.option("--creator", metavar="NAME", help="Who made it.")
@click.option(
    "--description", metavar="TEXT", help="What the data set's card says of it.  [default: what it is, in a paragraph]"
)
@click.option("--base-url", metavar="URL", help="Where the store will be found.  [default: paths from FOLDER on]")
@options.root
@options.as_json
def croissant(
    version: str,
    output: Path | None,
    license: str | None,  # noqa: A002
    url: str | None,
    creator: str | None,
    description: str | None,
    base_url: str | None,
    root: Path,
    as_json: bool,
) -> None:
    """Describe a version in Croissant, the metadata that data set search engines and `mlcroissant` read.

    Writes croissant.json (recipe, provenance, citation, files with SHA-256) and two Parquet tables that it makes loadable:
    croissant-images.parquet with a row an image, croissant-shards.parquet with a row a shard. Reads every shard once.

    \b
    Examples:
      featstore croissant voc/dinov2_b/v1 --license https://creativecommons.org/licenses/by/4.0/
      featstore croissant voc/dinov2_b/v1 --output card/ --base-url https://example.org/feature-store
    """
    authorship = Authorship(license, url, creator, description, base_url)
    with Progress("hashing", "byte", quiet=as_json) as progress:
        report = write_croissant(root, version, output, authorship, progress.start, progress.advance)
    if as_json:
        emit_json(asdict(report))
        return
    size = bytes_text(report.bytes)
    click.echo(f"{report.version}: {plural(report.images, 'image')} in {plural(report.shards, 'shard')} ({size})")
    click.echo(f"  wrote {report.metadata}")
    if not license:
        click.echo("  it names no licence: give --license URL before you publish it", err=True)
