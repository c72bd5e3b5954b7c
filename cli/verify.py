"""``featstore verify``."""

from collections.abc import Iterable
from pathlib import Path

import click

from featstore.findings import KINDS, Finding, VerifyReport
from featstore.verify import Watcher, verify_store

from . import options
from .printing import bytes_text, emit_json, plural, seconds_text
from .progress import Progress

__all__ = ["verify"]

DAMAGED = 3
SHOWN = 10


@click.command()
@click.argument("name", required=False)
@click.option("--quick", is_flag=True, help="Sizes, last lines and tables alone; no features are read.")
@options.root
@options.as_json
def verify(name: str | None, quick: bool, root: Path, as_json: bool) -> int:
    """Verify the whole store, or data set or version NAME: every byte of every shard, every row of the manifest.

    Tells all that is damaged and changes nothing; exit code 3 where anything is, 0 where all is well.

    \b
      featstore verify
      featstore verify voc/dinov2_b/v1
      featstore verify voc --quick --json
    """
    with Progress("verifying", unit="sample", quiet=as_json) as progress:
        report = verify_store(root, name, quick, Watcher(progress.start, progress.advance))
    if as_json:
        emit_json(facts(report))
    else:
        report_verify(report)
    return DAMAGED if report.damage else 0


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
