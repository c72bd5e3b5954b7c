"""``featstore eval``."""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from featstore.boxes import check_boxes
from featstore.errors import NotInStoreError, StoreError
from featstore.truths import Parts, common_images, folds_of, parts_of, stored_variants, versions_named
from featstore.versions import Version

from . import options
from .evaluated import Measured, figures_table, joined, parts_text
from .evaluating import Job
from .evaluating_patches import TASKS
from .printing import emit_json
from .progress import Progress

__all__ = ["eval_"]

NEEDS = {"segmentation": "mask", "knn": "mask", "depth": "depth", "discovery": "box"}
UNKEPT = 3
TRAINS = ("segmentation", "depth")
LEARNS = (*TRAINS, "knn")
JOBS = ("seeds", "over", "neighbours", "k_patches", "gradient")
Wanted = list[tuple[Version, tuple[str, ...]]]


@click.command("eval", context_settings={"show_default": True})
@click.argument("versions", nargs=-1, required=True, metavar="VERSION…")
@click.option("--task", type=click.Choice(list(TASKS)), default="segmentation", help="What to measure.")
@click.option(
    "--variants", type=options.Variants(), default=(), help="With commas.  [default: raw and clean, where stored]"
)
@click.option("--train-where", metavar="SQL", help="Images to train on.  [default: split train]")
@click.option(
    "--val-where",
    metavar="SQL",
    help="Images to judge by.  [default: split val or test; position, discovery: all images]",
)
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    metavar="K",
    help="Instead of splits: judge every image (of --val-where) once, in K parts, by what the other parts teach.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 20),
    metavar="N",
    default=3,
    help="Heads, one a seed; of position, times 16 images for MIC.",
)
@click.option(
    "--over",
    type=click.Choice(["seeds", "images"]),
    default="seeds",
    help="What a head's intervals are over: what training draws, or which images there are.",
)
@click.option("--steps", type=click.IntRange(min=1), metavar="N", default=500, help="Of training; the paper's: 40000.")
@click.option("--batch", type=click.IntRange(min=1), metavar="N", default=16, help="Images a step.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), metavar="RATE", default=1e-3, help="Learning rate.")
@click.option("--decay", type=click.FloatRange(0), metavar="WEIGHT", default=1e-4, help="AdamW's weight decay.")
@click.option(
    "--gradient",
    type=click.FloatRange(0),
    metavar="WEIGHT",
    default=0.5,
    help="Of the gradient loss of depth, beside the scale-invariant one; 0.5 is DINOv2's.",
)
@click.option(
    "--upsample",
    type=click.IntRange(min=1),
    metavar="N",
    default=4,
    help="Train on a grid N times finer than the patches; the patch size is the paper's way.",
)
@click.option("--neighbours", type=click.IntRange(min=1), metavar="K", default=20, help="Of kNN.")
@click.option("--k-patches", type=click.IntRange(min=1), metavar="K", default=100, help="LOST's, of discovery.")
@click.option("--device", metavar="NAME", default="auto", help="cpu, cuda, cuda:1 …")
@options.root
@options.as_json
def eval_(
    versions: tuple[str, ...],
    task: str,
    variants: tuple[str, ...],
    train_where: str | None,
    val_where: str | None,
    folds: int | None,
    device: str,
    root: Path,
    as_json: bool,
    **settings: Any,
) -> int:
    """Measure what stored features are worth, versions and variants side by side on the same images.

    segmentation: batch normalisation and one linear map, as DINOv2 and DVT evaluate; mIoU (over classes true or given
    anywhere, as mmsegmentation), aAcc, mAcc of masks at their own size. knn: the same of patches, labelled by nearest
    neighbours.

    depth: the linear head on 256 bins, by DINOv2's scale-invariant and gradient losses; RMSE [m], AbsRel, δ1 to δ3, in
    Eigen's crop for layout nyu. position: the share of variance that positions explain, and MIC.

    discovery: CorLoc, the share of images in which the box that LOST finds, untrained, overlaps any object's by an IoU
    above 0.5. LOST takes the features as stored, its paper the keys of the last attention. Difficult and truncated boxes
    count, COCO's crowds do not. "whole image" is the CorLoc of a box around everything.

    Brackets hold 95 % intervals: of heads by Student's t over seeds (what training draws, not which images there are), of
    the rest, and with --over images, percentiles of 1,000 bootstrap draws of images, of the share a jackknife's. Δ is the
    difference from the first line, paired. Photographs are not augmented: their features would be others. Figures are
    kept: the same again replaces them, and `featstore query voc "SELECT * FROM evaluations"` lists them. Exit code 3 where
    they could not be kept.

    \b
    Examples:
      featstore eval voc/dinov2_b/v1
      featstore eval voc/dinov2_b/v1 --task discovery
      featstore eval voc/dinov2_b/v1 voc/clip_b/v1 --task knn
      featstore eval few/dinov2_b/v1 --folds 5 --over images
      featstore eval voc/dinov2_b/v1 --variants clean --steps 40000 --upsample 14 --device cuda
      featstore eval nyu/dinov2_b/v1 --task depth --train-where "split = 'train'" --val-where "split = 'test'"
    """
    import dvt

    found = wanted(root, versions, variants)
    parts = images_for(task, root, found, train_where, val_where, folds)
    own = {name: settings.pop(name) for name in JOBS}
    head, place = dvt.HeadOptions(**settings), dvt.choose_device(device)
    outcomes, lost = measured(found, partial(Job, root, options=head, device=place, **own), task, parts, as_json)
    if as_json:
        emit_json([row for one in outcomes for row in one.rows()])
    else:
        click.echo(figures_table([figure for one in outcomes for figure in one.told()]))
    for line in lost:
        click.echo(f"error: {line}", err=True)
    return UNKEPT if lost else 0


def measured(
    found: Wanted, make: Callable[..., Job], task: str, parts: tuple[Parts, ...], quiet: bool
) -> tuple[list[Measured], list[str]]:
    """Return what a task gives for every version, which is kept in the manifest, and a line for each that could not be."""
    outcomes: list[Measured] = []
    lost: list[str] = []
    jobs = [[make(version=version, variants=names, parts=fold) for fold in parts] for version, names in found]
    if not quiet:
        click.echo(f"{task} on {jobs[0][0].device}: {parts_text(parts)}", err=True)
    with Progress("evaluating", "image" if task == "discovery" else "fit", quiet=quiet) as progress:
        fits = sum(len(job.variants) for own in jobs for job in own) * (jobs[0][0].seeds if task in TRAINS else 1)
        progress.start(len(parts[0].val) * len(jobs) if task == "discovery" else fits)
        for own in jobs:
            outcome = joined([TASKS[task](replace(job, advance=progress.advance)) for job in own])
            peer = outcomes[0] if outcomes else None
            outcomes.append(Measured(own[0].version, task, parts, outcome, peer))
            try:
                outcomes[-1].keep(own[0].root, parameters(task, own[0]))
            except StoreError as error:  # hours of training are told all the same
                lost.append(f"figures of {own[0].version.name} are not kept: {error}")
    return outcomes, lost


def wanted(root: Path, names: tuple[str, ...], variants: tuple[str, ...]) -> Wanted:
    """Return versions with the variants to measure; raises NotInStoreError where one is not stored, or none of a default."""
    found: Wanted = []
    for version in versions_named(root, names):
        held = stored_variants(root, version)
        if variants:
            absent = [name for name in variants if name not in held]
            if absent:
                raise NotInStoreError(f"{version.name} does not store {', '.join(absent)}: it has {', '.join(held)}")
        own = variants or tuple(name for name in ("raw", "clean") if name in held)
        if not own:
            raise NotInStoreError(
                f"{version.name} stores neither raw nor clean: choose --variants of {', '.join(held)}"
            )
        found.append((version, tuple(dict.fromkeys(own))))
    return found


def images_for(
    task: str, root: Path, found: Wanted, train_where: str | None, val_where: str | None, folds: int | None
) -> tuple[Parts, ...]:
    """Return the images of a task, of each fold: of one that learns nothing all that have what it needs."""
    needs = NEEDS.get(task)
    if needs == "box":
        check_boxes(root, found[0][0].dataset)
    if train_where is not None and (task not in LEARNS or folds):
        why = f"--task {task} learns nothing" if task not in LEARNS else "--folds learns from what it does not judge"
        raise click.UsageError(f"{why}: leave --train-where out")
    if folds and task not in LEARNS:
        raise click.UsageError(f"--task {task} learns nothing: leave --folds out")
    if folds:
        return folds_of(root, found, folds, val_where or "true", needs)
    if task in LEARNS:
        return (parts_of(root, found, train_where, val_where, needs),)
    return (Parts((), common_images(root, found, val_where or "true", needs), ("", val_where or "true")),)


def parameters(task: str, job: Job) -> dict[str, object]:
    """Return what decides a task's figures beside features and images; seeds are what intervals are over, if not said."""
    if task in TRAINS:
        own = asdict(job.options) | {"seeds": job.seeds} | ({"gradient": job.gradient} if task == "depth" else {})
        return own | ({"over": job.over} if job.over != "seeds" else {})
    alone = {"knn": {"neighbours": job.neighbours}, "discovery": {"k_patches": job.k_patches}}
    return dict(alone.get(task, {"seeds": job.seeds}))
