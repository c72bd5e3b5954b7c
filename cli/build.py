"""``featstore build``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from featstore.build import BuildReport, Listener, build_versions
from featstore.compute import VARIANTS, Decomposer
from featstore.engines import Engine
from featstore.errors import NotInStoreError
from featstore.index import IndexReport
from featstore.plan import Request, make_plan
from featstore.query import restricted

from . import demo, options
from .build_report import FAILED, report_builds, report_plans
from .compute import ComputeOptions, load_backbone, make_decomposer
from .compute_options import compute_options
from .engine_options import choose_place, engine_options
from .environment import environment, provenance
from .index import report_index, run_index
from .layers import choose_layers, first_layer
from .method import Choice, named_method
from .printing import bytes_text, plural
from .progress import Progress
from .reproduce import reproduce_command

__all__ = ["build"]

WAIT = 24 * 3600.0


@click.command(context_settings={"show_default": True})
@click.argument("name")
@options.source_options
@compute_options
@click.option(
    "--layers",
    type=options.Blocks(),
    default=(),
    help="Several blocks in one pass, 5,11: a version each, as --layer makes it.",
)
@click.option("--variants", type=options.Variants(), default=(), help=f"Of {','.join(VARIANTS)}.  [default: all]")
@options.store
@options.compress
@click.option("--where", metavar="SQL", help="Only images for which this holds, e.g. \"split = 'train'\".")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N images by image_id.")
@click.option("--shard-size", type=click.IntRange(min=1), metavar="N", help="Images a shard.  [default: by their cost]")
@engine_options
@click.option("--retry-failed", is_flag=True, help="Try images again that failed before.")
@click.option("--wait", is_flag=True, help="Wait for another build in the same root instead of stopping.")
@options.force
@options.dry_run
@options.root
@options.as_json
def build(
    name: str,
    source: Path | None,
    layout: str | None,
    layers: tuple[int, ...],
    variants: tuple[str, ...],
    store: str,
    codec: str,
    where: str | None,
    limit: int | None,
    shard_size: int | None,
    retry_failed: bool,
    wait: bool,
    force: bool,
    dry_run: bool,
    root: Path,
    as_json: bool,
    **chosen: Any,
) -> int:
    """Compute features of data set NAME and store them as a version.

    Only what is missing is computed: the same command again computes nothing, a killed one goes on where it was, a changed
    parameter makes a new version beside the old. What cannot be read is listed in the table `failures`; exit code 3 then.

    \b
    Examples:
      featstore build demo
      featstore build voc --source VOCdevkit --backbone dinov2_b --method stage1
      featstore build voc --backbone dinov2_b --denoiser hub:voc_denoised
      featstore build voc --backbone dinov2_b --method raw --layers 5,11 --resize keep
      featstore build voc --backbone dinov2_s --method raw --where "split = 'train'" --limit 100
    """
    if name == demo.NAME and source is None:
        layout, chosen = demo.LAYOUT, demo.choose(chosen, click.get_current_context())
    place = choose_place(chosen, click.get_current_context())
    method = named_method(chosen, click.get_current_context())
    compute = place.share(ComputeOptions(**chosen | {"method": method or "stage1"}))
    compute = first_layer(compute, layers, click.get_current_context())
    indexed = index_first(root, name, source, layout, quiet=as_json)
    backbone = load_backbone(compute)
    choices, known = choose_layers(root, name, compute, backbone, layers, method, dry_run)
    first = choices[0][1]
    decomposer = make_decomposer(first.compute, backbone, known)
    wanted = (name, backbone.id, variants, where, limit, retry_failed, shard_size)
    requests = []
    for one, choice in choices:
        facts = environment(one) | place.facts()
        facts["reproduce"] = reproduce_command(name, choice.compute, one, choice, store)
        requests.append(Request(*wanted, facts, provenance(), store=store, codec=codec))
    announce(backbone, decomposer, chosen, [choice for _, choice in choices], quiet=as_json)
    if dry_run:
        parts = getattr(decomposer, "parts", (decomposer,))
        plans = [make_plan(root, *each) for each in zip(requests, parts, strict=True)]
        report_plans(root, plans, parts, as_json, place.workers)
        return 0
    engine = place.make_engine(first.compute, backbone, known, root)
    reports = run(root, requests, decomposer, WAIT if wait else 0.0, as_json, engine, force)
    picture = demo.draw(root, reports[0]) if name == demo.NAME else None
    report_builds(reports, picture, as_json)
    return FAILED if any(report.failed for report in reports) or (indexed and indexed.problems) else 0


def index_first(root: Path, name: str, source: Path | None, layout: str | None, quiet: bool) -> IndexReport | None:
    """Index where a source is given, or the data set is new and needs none; raises NotInStoreError where it must be given."""
    if source is None and (layout != demo.LAYOUT or is_indexed(root, name)):
        with restricted(root, name):  # an unknown data set is told before a model is loaded for it
            return None
    report = run_index(root, name, source, layout, quiet)
    if not quiet:
        report_index(report)
    return report


def is_indexed(root: Path, name: str) -> bool:
    """Whether the manifest lists the data set."""
    try:
        with restricted(root, name):
            return True
    except NotInStoreError:
        return False


def announce(
    backbone: Any, decomposer: Decomposer, given: dict[str, Any], choices: Sequence[Choice], quiet: bool
) -> None:
    """Say which method and weights are used, and why where the user did not choose; ``quiet``, the priors alone."""
    for line in dict.fromkeys(line for choice in choices for line in ("" if quiet else choice.why, choice.prior)):
        if line:
            click.echo(line, err=True)
    if quiet:
        return
    if given["weights"] is None and backbone.weights_source.startswith("demo"):
        click.echo("the hub cannot be reached: demo weights are used; --weights FILE takes others", err=True)
    for note in getattr(decomposer, "notes", ()):
        click.echo(note, err=True)
    height, width = decomposer.grid
    shapes = " about, in each image's shape" if hasattr(decomposer, "grid_for") else ""
    click.echo(
        f"{decomposer.method}: {views_text(decomposer)} an image, {height}×{width} patches{shapes}, "
        f"{decomposer.width} channels; weights {backbone.weights_source}",
        err=True,
    )


def views_text(decomposer: Decomposer) -> str:
    """Return how many inputs of which size an image takes, and the memory where the decomposer estimates it."""
    models = getattr(decomposer, "backbones", None)
    if models is None:
        return plural(decomposer.forwards_per_image, "forward")
    sizes = ["×".join(map(str, model.input_size)) for model in models]
    counts = decomposer.view_counts()  # type: ignore[attr-defined]
    views = " and ".join(f"{count} views at {size}" for count, size in zip(counts, sizes, strict=True))
    return f"{views} (about {bytes_text(decomposer.estimated_bytes)} of memory)"  # type: ignore[attr-defined]


def run(
    root: Path,
    requests: Sequence[Request],
    decomposer: Decomposer,
    wait: float,
    quiet: bool,
    engine: Engine,
    force: bool,
) -> list[BuildReport]:
    """Build with a progress bar."""
    with Progress("building", quiet=quiet) as progress:
        listener = Listener(progress.start, progress.advance, progress.say)
        return build_versions(root, requests, decomposer, listener, wait, engine, force)
