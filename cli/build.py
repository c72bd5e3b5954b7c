"""``featstore build``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from featstore.build import BuildReport, Listener, build_version
from featstore.compute import VARIANTS, Decomposer
from featstore.errors import InputError, NotInStoreError
from featstore.index import IndexReport
from featstore.plan import Plan, Request, make_plan
from featstore.pooled import pool_artifact
from featstore.query import restricted
from featstore.worker import Worker

from . import demo, devices, options
from .compute import ComputeOptions, environment, load_backbone, make_decomposer, provenance
from .index import report_index, run_index
from .printing import bytes_text, emit_json, plural, seconds_text
from .progress import Progress
from .stage1_options import stage1_options

__all__ = ["build"]

FAILED = 3
WAIT = 24 * 3600.0


@click.command(context_settings={"show_default": True})
@click.argument("name")
@options.source_options
@click.option(
    "--backbone", metavar="NAME", default="dinov2_s", help="Alias (dinov2_b, mae_b, clip_b …) or any timm name."
)
@click.option("--weights", metavar="FILE", help="safetensors, pth or ONNX file; or hub, demo, random.  [default: hub]")
@click.option("--method", type=click.Choice(["raw", "stage1"]), help="[default: the best at hand: stage1]")
@click.option("--variants", type=options.Variants(), default=(), help=f"Of {','.join(VARIANTS)}.  [default: all]")
@click.option("--where", metavar="SQL", help="Only images for which this holds, e.g. \"split = 'train'\".")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N images by image_id.")
@click.option("--device", metavar="LIST", default="auto", help=devices.HELP)
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="Inputs a forward.  [default: 4, GPU 32]")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), help="[default: float32, on a GPU bfloat16]")
@click.option("--input-size", type=options.Size(), help="What images are resized to [pixels].  [default: the model's]")
@click.option(
    "--stride",
    type=click.IntRange(min=1),
    metavar="N",
    help="Pixels from patch to patch; below the patch they overlap.  [default: the patch]",
)
@click.option("--layer", type=int, metavar="N", help="Block to take, from 0; -1 is the last.  [default: the last]")
@click.option("--norm/--no-norm", default=True, help="Apply the model's final norm.")
@click.option(
    "--solver", type=click.Choice(["lstsq", "field"]), help="stage1: direct, or the paper's.  [default: lstsq]"
)
@click.option("--views", type=click.IntRange(min=1), metavar="N", help="stage1: crops to fit an image.  [default: 64]")
@stage1_options()
@click.option("--shard-size", type=click.IntRange(min=1), metavar="N", help="Images a shard.  [default: by their cost]")
@click.option("--retry-failed", is_flag=True, help="Try images again that failed before.")
@click.option("--wait", is_flag=True, help="Wait for another build in the same root instead of stopping.")
@options.dry_run
@options.root
@options.as_json
def build(
    name: str,
    source: Path | None,
    layout: str | None,
    variants: tuple[str, ...],
    where: str | None,
    limit: int | None,
    shard_size: int | None,
    retry_failed: bool,
    wait: bool,
    dry_run: bool,
    root: Path,
    as_json: bool,
    **chosen: Any,
) -> int:
    """Compute features of data set NAME and store them as a version.

    Only what is missing is computed: the same command again computes nothing, a killed one goes on where it was, a
    changed parameter makes a new version beside the old. `featstore build demo` needs no data and no download.

    \b
      featstore build demo
      featstore build voc --source VOCdevkit --backbone dinov2_b --method stage1
      featstore build voc --backbone dinov2_s --method raw --where "split = 'train'" --limit 100
    """
    if name == demo.NAME and source is None:
        layout, chosen = demo.LAYOUT, demo.choose(chosen, click.get_current_context())
    named = devices.parse_devices(chosen["device"])
    compute = devices.share(ComputeOptions(**chosen | {"method": chosen["method"] or "stage1"}), named)
    indexed = index_first(root, name, source, layout, quiet=as_json)
    request = Request(name, "", variants, where, limit, retry_failed, shard_size)
    backbone = load_backbone(compute)
    prior = load_prior(root, compute, backbone)
    decomposer = make_decomposer(compute, backbone, prior)
    facts = environment(backbone) | devices.cards(named)
    request = Request(name, backbone.id, variants, where, limit, retry_failed, shard_size, facts, provenance())
    if not as_json:
        announce(backbone.weights_source, decomposer, chosen)
    if dry_run:
        report_plan(make_plan(root, request, decomposer), decomposer, as_json, len(named))
        return 0
    workers = devices.make_workers(compute, named, backbone, prior)
    report = run(root, request, decomposer, WAIT if wait else 0.0, as_json, workers)
    picture = demo.draw(root, report) if name == demo.NAME else None
    report_build(report, picture, as_json)
    return FAILED if report.failed or (indexed and indexed.problems) else 0


def load_prior(root: Path, compute: ComputeOptions, backbone: Any) -> NDArray[np.float32] | None:
    """Return the artifact pooled over --artifact-prior's version; raises InputError where that is another model's."""
    if compute.artifact_prior is None:
        return None
    pooled = pool_artifact(root, compute.artifact_prior)
    if pooled.backbone != backbone.recipe():
        raise InputError(
            f"{pooled.version} was made with another backbone, weights, input or layer: its artifact is no prior"
        )
    click.echo(f"artifact prior: the mean over {plural(pooled.images, 'image')} of {pooled.version}", err=True)
    return pooled.mean


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


def announce(weights: str, decomposer: Decomposer, given: dict[str, Any]) -> None:
    """Say which method and weights are used, and why where the user did not choose."""
    if given["method"] is None:
        click.echo(f"method {decomposer.method}: the best at hand, since no denoiser is trained yet", err=True)
    if given["weights"] is None and weights.startswith("demo"):
        click.echo("the hub cannot be reached: demo weights are used; --weights FILE takes others", err=True)
    for note in getattr(decomposer, "notes", ()):
        click.echo(note, err=True)
    height, width = decomposer.grid
    click.echo(
        f"{decomposer.method}: {views_text(decomposer)} an image, {height}×{width} patches, "
        f"{decomposer.width} channels; weights {weights}",
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
    root: Path, request: Request, decomposer: Decomposer, wait: float, quiet: bool, workers: Sequence[Worker]
) -> BuildReport:
    """Build with a progress bar."""
    with Progress("building", quiet=quiet) as progress:
        listener = Listener(lambda plan: progress.start(len(plan.todo)), progress.advance, progress.say)
        return build_version(root, request, decomposer, listener, wait, workers)


def report_plan(plan: Plan, decomposer: Decomposer, as_json: bool, processes: int) -> None:
    """Say what a build would do; it takes as long as the process with the most shards."""
    shards = -(-len(plan.todo) // plan.shard_size)
    longest = min(len(plan.todo), -(-shards // processes) * plan.shard_size)
    seconds = (plan.seconds_per_image or measure(decomposer)) * longest
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
        "seconds": seconds,
    }
    if as_json:
        emit_json(facts)
        return
    click.echo(f"would compute {len(plan.todo):,} of {plural(plan.wanted, 'image')} ({plan.present:,} are there)")
    click.echo(f"  into    {plan.folder}")
    click.echo(f"  writing {bytes_text(plan.bytes_to_write)} in {plural(shards, 'shard')}")
    click.echo(f"  taking  about {seconds_text(seconds)} on this machine")


def measure(decomposer: Decomposer) -> float:
    """Return how long an image takes, from one timed forward where the decomposer can tell [s]."""
    timed = getattr(decomposer, "seconds_per_image", None)
    if timed is None:
        raise InputError(f"{decomposer.method} cannot tell how long an image takes")
    return float(timed())


def report_build(report: BuildReport, picture: Path | None, as_json: bool) -> None:
    """Say what was built, where it lies, and what to do with it."""
    if as_json:
        emit_json(vars(report) | {"picture": str(picture) if picture else None})
        return
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
    root = Path(report.folder).parents[2]
    arguments = f'"{root}", "{report.dataset}", backbone="{report.backbone}", variants=("{variant}",)'
    click.echo(f"  load     featstore.FeatureDataset({arguments})")
