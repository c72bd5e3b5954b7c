"""What ``build`` and ``denoise`` say: the plan, and what was done."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from featstore.build import BuildReport
from featstore.compute import Decomposer
from featstore.errors import InputError
from featstore.filters import NONE
from featstore.places import stored_path
from featstore.plan import Plan
from featstore.room import free_bytes, needed

from .printing import bytes_text, emit_json, plural, seconds_text

__all__ = ["FAILED", "report_builds", "report_plans"]

FAILED = 3


def report_plans(root: Path, plans: Sequence[Plan], parts: Sequence[Decomposer], as_json: bool, workers: int) -> None:
    """Say what a build would do for each version; as JSON one object, a list where there are several."""
    facts = [report_plan(root, *each, as_json, workers) for each in zip(plans, parts, strict=True)]
    if as_json:
        emit_json(facts[0] if len(facts) == 1 else facts)
    elif len(plans) > 1:
        room = sum(plan.bytes_to_write for plan in plans)
        click.echo(f"{len(plans)} versions in one pass, {bytes_text(room)} together; the times are those of each alone")


def report_plan(root: Path, plan: Plan, decomposer: Decomposer, quiet: bool, workers: int) -> dict[str, Any]:
    """Say what a build would do; it takes as long as the one of its workers with the most shards."""
    shards = sum(-(-count // plan.shard_size) for count in plan.grids.values())
    longest = min(len(plan.todo), -(-shards // workers) * plan.shard_size)
    each = 0.0 if not plan.todo else plan.seconds_per_image or measure(decomposer)
    seconds, free = each * longest, free_bytes(root)
    fits = free is None or needed(plan) <= free
    facts = {
        "dataset": plan.dataset,
        "backbone": plan.backbone,
        "method": decomposer.method,
        "digest": plan.recipe.digest,
        "folder": str(plan.folder),
        "variants": plan.variants,
        "wanted": plan.wanted,
        "present": plan.present,
        "failed_before": plan.failed_before,
        "to_compute": len(plan.todo),
        "shards": shards,
        "bytes": plan.bytes_to_write,
        "store": plan.store,
        "codec": plan.codec,
        "free_bytes": free,
        "fits": fits,
        "seconds": seconds,
        "seconds_per_image": each,
        "measured": plan.seconds_per_image is None and bool(plan.todo),
        "workers": workers,
    }
    if quiet:
        return facts
    click.echo(f"would compute {len(plan.todo):,} of {plural(plan.wanted, 'image')} ({plan.present:,} are there)")
    click.echo(f"  into    {plan.folder}")
    bound = "" if plan.codec == NONE else f"{plan.codec}, at most "
    click.echo(f"  writing {bound}{bytes_text(plan.bytes_to_write)} in {plural(shards, 'shard')}")
    there = "nobody can tell how much is free behind a URL" if free is None else f"{bytes_text(free)} are free there"
    click.echo(f"  room    {there}" + ("" if fits else ": it does not fit, and is refused without --force"))
    if plan.todo:
        one = f"{each:.2g} s an image, {how(plan, decomposer)}"
        several = "" if workers == 1 else f", {workers} workers at once"
        click.echo(f"  taking  about {seconds_text(seconds)} ({one}{several})")
    return facts


def how(plan: Plan, decomposer: Decomposer) -> str:
    """Say where the time of an image is from."""
    if plan.seconds_per_image is not None:
        return "as those took that are stored"
    return f"measured here: {getattr(decomposer, 'timed', 'one forward')}, reading and writing aside"


def measure(decomposer: Decomposer) -> float:
    """Return how long an image takes, from what the decomposer times, where it can tell [s]."""
    timed = getattr(decomposer, "seconds_per_image", None)
    if timed is None:
        raise InputError(f"{decomposer.method} cannot tell how long an image takes")
    return float(timed())


def report_builds(reports: Sequence[BuildReport], picture: Path | None, as_json: bool) -> None:
    """Say what was built of each version; as JSON one object, a list where there are several."""
    if as_json:
        facts = [vars(report) | {"picture": str(picture) if picture else None} for report in reports]
        emit_json(facts[0] if len(facts) == 1 else facts)
        return
    for report in reports:
        report_build(report, picture)


def report_build(report: BuildReport, picture: Path | None) -> None:
    """Say what was built, where it lies, and what to do with it."""
    counts = f"{plural(report.computed, 'image')} computed, {report.present:,} there before, {report.failed:,} failed"
    click.echo(f"{report.dataset}/{report.backbone}/{report.version} ({report.method}): {counts}")
    wrote = f"{plural(report.shards, 'shard')}, {bytes_text(report.bytes)}, " if report.shards else ""
    click.echo(f"  store    {report.folder} ({wrote}{', '.join(report.variants)})")
    if picture:
        click.echo(f"  picture  {picture}")
    click.echo(f"  took     {seconds_text(report.seconds)}")
    if report.failed:
        click.echo(
            f'  failed   featstore query {report.dataset} "SELECT image_id, step, error FROM failures"', err=True
        )
    click.echo(f'  ask      featstore query {report.dataset} "SELECT * FROM coverage"')
    variant = "clean" if "clean" in report.variants else report.variants[0]
    root = stored_path(report.folder).parent.parent.parent
    arguments = f'"{root}", "{report.dataset}", backbone="{report.backbone}", variants=("{variant}",)'
    click.echo(f"  load     featstore.FeatureDataset({arguments})")
