"""``featstore rm``."""

from dataclasses import asdict
from pathlib import Path

import click

from featstore.removal import remove_dataset, remove_version

from . import options
from .printing import bytes_text, emit_json, plural

__all__ = ["rm"]


@click.command()
@click.argument("name", metavar="VERSION")
@click.option("--dataset", "whole", is_flag=True, help="VERSION is a data set: remove it with all its versions.")
@click.option("--force", is_flag=True, help="Remove tagged versions, too.")
@options.dry_run
@options.root
@options.as_json
def rm(name: str, whole: bool, force: bool, dry_run: bool, root: Path, as_json: bool) -> None:
    """Remove a version, or with --dataset a data set and all that was built of it.

    Only the manifest changes: files stay until `featstore gc`, and until then the same `featstore build` takes them back and
    computes nothing. Features to which another data set's version refers stay for good. A number is never used again for
    something else. Photographs are never touched.

    \b
    Examples:
      featstore rm voc/dinov2_b/v2 --dry-run
      featstore rm voc/dinov2_b/v2
      featstore rm voc --dataset
    """
    removal = (remove_dataset if whole else remove_version)(root, name, force, dry_run)
    if as_json:
        emit_json(asdict(removal) | {"dry_run": dry_run})
        return
    versions = ", ".join(removal.versions)
    if whole:
        held = f" with {plural(len(removal.versions), 'version')} ({versions})" if versions else ""
        versions = f"data set {removal.dataset}: {plural(removal.images, 'image')}{held}"
    click.echo(f"{'would remove' if dry_run else 'removed'} {versions}")
    waiting = f"{plural(removal.shards, 'shard')}, {bytes_text(removal.bytes)}"
    click.echo(f"  {waiting}: {'would go' if dry_run else 'go'} with featstore gc")
    if removal.kept_shards:
        click.echo(
            f"  {plural(removal.kept_shards, 'shard')} of the same recipe, to which another version refers, stay"
        )
    for note in removal.notes:
        click.echo(f"  {note}")
