"""``featstore verify``."""

from collections.abc import Iterable
from pathlib import Path

import click

from featstore.findings import KINDS, Action, Finding, VerifyReport
from featstore.repair import RepairReport, repair_store
from featstore.verify import Watcher, verify_store

from . import options
from .printing import bytes_text, emit_json, plural, seconds_text
from .progress import Progress
from .reproduce import decomposer_of

__all__ = ["verify"]

DAMAGED = 3
WAIT = 24 * 3600.0
SHOWN = 10


@click.command()
@click.argument("name", required=False)
@click.option("--quick", is_flag=True, help="Sizes, last lines and tables alone; no features are read.")
@click.option(
    "--repair", is_flag=True, help="Mend what is damaged; whole samples are copied, the others computed again."
)
@click.option("--device", metavar="NAME", default="auto", help="With --repair: where to compute; cpu, cuda, cuda:1 …")
@click.option("--wait", is_flag=True, help="With --repair: wait for a build in the same root instead of stopping.")
@options.dry_run
@options.root
@options.as_json
def verify(
    name: str | None, quick: bool, repair: bool, device: str, wait: bool, dry_run: bool, root: Path, as_json: bool
) -> int:
    """Verify the whole store, or data set or version NAME: every byte of every shard, every row of the manifest.

    Tells all that is damaged and changes nothing, unless --repair is given. Exit code 3 where anything is damaged (with
    --repair: still, or an image is lost), 0 where all is well.

    \b
    Examples:
      featstore verify
      featstore verify voc/dinov2_b/v1
      featstore verify voc --quick --json
      featstore verify --repair --dry-run
    """
    if quick and repair:
        raise click.UsageError("--repair reads everything: leave out --quick")
    if dry_run and not repair:
        raise click.UsageError("--dry-run goes with --repair; verify alone changes nothing")
    with Progress("verifying", unit="sample", quiet=as_json) as progress:
        watcher = Watcher(progress.start, progress.advance)
        if not repair:
            report = verify_store(root, name, quick, watcher)
            emit_json(facts(report)) if as_json else report_verify(report)
            return DAMAGED if report.damage else 0
        mended = repair_store(
            root,
            name,
            lambda version: decomposer_of(root, version.name, device),
            dry_run,
            WAIT if wait else 0.0,
            watcher,
        )
    emit_json(repair_facts(mended)) if as_json else report_repair(mended)
    return DAMAGED if mended.left or mended.lost or (dry_run and mended.before.damage) else 0


def facts(report: VerifyReport) -> dict[str, object]:
    """Return a report as JSON has it."""
    findings = [vars(finding) | {"damage": finding.damage} for finding in report.findings]
    return vars(report) | {"ok": not report.damage, "counts": report.counts, "findings": findings}


def report_verify(report: VerifyReport) -> None:
    """Say what was looked at and, kind by kind, what was found."""
    for kind in report.counts:
        tell(kind, [finding for finding in report.findings if finding.kind == kind])
    read = "nothing read but tables" if report.quick else f"{bytes_text(report.bytes)} read"
    looked = (
        f"{plural(report.versions, 'version')}, {plural(report.shards, 'shard')}, {plural(report.samples, 'sample')}"
    )
    click.echo(f"{report.scope}: {looked}, {read} in {seconds_text(report.seconds)}")
    if report.damage:
        click.echo(f"  damaged: {plural(len(report.damage), 'finding')}", err=True)
    else:
        click.echo("  all is as it was written")


def tell(kind: str, findings: Iterable[Finding]) -> None:
    """Print the findings of one kind, the first few in full."""
    lines = [f"  {finding.path}: {finding.text}" for finding in findings]
    click.echo(f"{kind}: {KINDS[kind]} ({len(lines):,})")
    for line in lines[:SHOWN]:
        click.echo(line)
    if len(lines) > SHOWN:
        click.echo(f"  … and {len(lines) - SHOWN:,} more (--json tells all)")


def repair_facts(report: RepairReport) -> dict[str, object]:
    """Return a repair as JSON has it."""
    actions = [vars(action) | {"lost": [vars(failure) for failure in action.lost]} for action in report.actions]
    left = [vars(finding) for finding in report.left]
    counts = {"recomputed": report.recomputed, "dropped": report.dropped, "lost": len(report.lost)}
    return {"dry_run": report.dry_run, "found": facts(report.before), "actions": actions, "left": left} | counts


def report_repair(report: RepairReport) -> None:
    """Say what was damaged, what was done, and what is left."""
    report_verify(report.before)
    would = "would be " if report.dry_run else ""
    for action in report.actions:
        click.echo(f"{would}{action.deed}: {action.path}: {action.text}{told(action, report.dry_run)}")
    if report.dropped:
        click.echo(f"{would}dropped: {plural(report.dropped, 'row')} that pointed to no sample")
    for failure in report.lost:
        click.echo(f"  lost: {failure.image_id}: {failure.step}: {failure.error}", err=True)
    for finding in report.left:
        click.echo(f"  damaged still: {finding.path}: {finding.text}", err=True)
    if report.actions:
        click.echo(f"  {plural(report.recomputed, 'sample')} {would}computed again")


def told(action: Action, dry_run: bool) -> str:
    """Return what came of writing a shard again."""
    if action.deed != "rewritten":
        return ""
    counts = f" ({action.copied:,} copied, {action.recomputed:,} computed)"
    if dry_run or action.same is None:
        return counts
    return counts + (", the bytes that were sealed" if action.same else ", other bytes than were sealed")
