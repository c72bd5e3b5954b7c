"""``featstore gc``."""

from collections import defaultdict
from pathlib import Path

import click

from featstore.collection import collect_garbage
from featstore.garbage import Garbage, GarbagePlan, plan_garbage

from . import options
from .printing import bytes_text, emit_json, plural, table_text

__all__ = ["gc"]

SHOWN = 10
WAIT = 7 * 24 * 3600.0


@click.command()
@click.option("--old-revisions", is_flag=True, help="Also shards whose images are all in no current revision.")
@click.option("--wait", is_flag=True, help="Wait for a build in the same root instead of stopping.")
@options.dry_run
@options.root
@options.as_json
def gc(old_revisions: bool, wait: bool, dry_run: bool, root: Path, as_json: bool) -> None:
    """Delete what nobody needs any more, and say what, why, and how many bytes.

    That is: shards of removed versions to which no other version refers; shards whose images all lie in newer ones, or are in
    no revision; what killed processes were writing; trainings and calibrations of what is gone; empty folders. A sealed
    shard that the manifest does not know is never deleted.

    \b
    Examples:
      featstore gc --dry-run
      featstore gc
      featstore gc --old-revisions
    """
    plan = plan_garbage(root, old_revisions) if dry_run else collect_garbage(root, old_revisions, WAIT if wait else 0.0)
    if as_json:
        garbage = [{"kind": g.kind, "path": g.path, "bytes": g.bytes, "why": g.why} for g in plan.garbage]
        left = [{"path": path, "why": why} for path, why in plan.left]
        facts = {"dry_run": dry_run, "files": len(garbage), "bytes": plan.bytes, "rows": plan.rows}
        emit_json(facts | {"garbage": garbage, "left": left})
        return
    report(plan, dry_run)


def report(plan: GarbagePlan, dry_run: bool) -> None:
    """Print what goes, by kind and reason, and what is left alone."""
    groups: dict[tuple[str, str], list[Garbage]] = defaultdict(list)
    for item in plan.garbage:
        groups[item.kind, item.why].append(item)
    if groups:
        rows = [
            (kind, len(items), bytes_text(sum(i.bytes for i in items)), why) for (kind, why), items in groups.items()
        ]
        click.echo(table_text(["what", "files", "size", "why"], rows) + "\n")
    files = f"{plural(len(plan.garbage), 'file')}, {bytes_text(plan.bytes)}"
    rows_told = f", {plural(plan.rows, 'row')} of features" if plan.rows else ""
    click.echo(f"{'would delete' if dry_run else 'deleted'} {files}{rows_told}")
    for path, why in plan.left[:SHOWN]:
        click.echo(f"  left alone: {path}: {why}", err=True)
    if len(plan.left) > SHOWN:
        click.echo(f"  … and {len(plan.left) - SHOWN:,} more", err=True)
