"""``featstore tag``."""

from dataclasses import asdict
from pathlib import Path

import click

from featstore.tags import tag_version

from . import options
from .printing import emit_json

__all__ = ["tag"]


@click.command()
@click.argument("name")
@click.argument("version")
@click.argument("tag", required=False, metavar="TAG", default=None)
@click.option("--force", is_flag=True, help="Take the tag from another version, or replace this one's.")
@click.option("--delete", "deleted", is_flag=True, help="Take the version's tag off.")
@options.dry_run
@options.root
@options.as_json
def tag(
    name: str, version: str, tag: str | None, force: bool, deleted: bool, dry_run: bool, root: Path, as_json: bool
) -> None:
    """Give VERSION of NAME a TAG, by which every command and reader then finds it.

    NAME is dataset/backbone. A tag is one version's at a time; it cannot look like a number or like the digits of a digest. A
    tagged version is not removed by mistake: `featstore rm` asks for --force.

    \b
    Examples:
      featstore tag voc/dinov2_b v3 paper
      featstore tag voc/dinov2_b v4 paper --force
      featstore tag voc/dinov2_b v4 --delete
    """
    if (tag is None) != deleted:
        raise click.UsageError("give a TAG, or --delete to take the version's tag off")
    told = tag_version(root, name, version, tag, force, dry_run)
    if as_json:
        emit_json(asdict(told) | {"dry_run": dry_run})
        return
    would = "would be " if dry_run else ""
    if deleted:
        click.echo(f"{told.version}: tag {told.before} {would}taken off")
        return
    told_from = f", taken from {told.taken_from}" if told.taken_from else ""
    replaced = f" in place of {told.before}" if told.before not in (None, told.tag) else ""
    click.echo(f"{told.version} {would or 'is '}tagged {told.tag}{replaced}{told_from}")
