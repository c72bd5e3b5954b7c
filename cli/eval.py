"""``featstore eval``."""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from featstore.boxes import check_boxes
from featstore.errors import InputError, NotInStoreError, StoreError
from featstore.evaluations import Figure, keep_evaluations
from featstore.truths import Parts, common_images, parts_of, stored_variants, versions_named
from featstore.versions import Version

from . import options
from .evaluating import Job, Outcome
from .evaluating_patches import TASKS
from .printing import emit_json, plural, table_text
from .progress import Progress

__all__ = ["eval_"]

NEEDS = {"segmentation": "mask", "knn": "mask", "depth": "depth", "discovery": "box"}
UNKEPT = 3
TRAINS = ("segmentation", "depth")
LEARNS = (*TRAINS, "knn")
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
@click.option("--seeds", type=click.IntRange(1, 20), metavar="N", default=3, help="Heads (position: MICs), one a seed.")
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
    seeds: int,
    neighbours: int,
    k_patches: int,
    gradient: float,
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

    Brackets hold 95 % t-intervals over seeds (what training draws, not which images there are), for knn and discovery
    percentiles of 1,000 bootstrap draws of images, for the share a jackknife's over images. Δ is the difference from the
    first line, paired. Photographs are not augmented: their features would be others. Figures are kept: the same again
    replaces them, and `featstore query voc "SELECT * FROM evaluations"` lists them. Exit code 3 where they could not be
    kept.

    \b
    Examples:
      featstore eval voc/dinov2_b/v1
      featstore eval voc/dinov2_b/v1 --task discovery
      featstore eval voc/dinov2_b/v1 voc/clip_b/v1 --task knn
      featstore eval voc/dinov2_b/v1 --variants clean --steps 40000 --upsample 14 --device cuda
      featstore eval nyu/dinov2_b/v1 --task depth --train-where "split = 'train'" --val-where "split = 'test'"
    """
    import dvt

    found = wanted(root, versions, variants)
    parts = images_for(task, root, found, train_where, val_where)
    head, place = dvt.HeadOptions(**settings), dvt.choose_device(device)
    own: dict[str, Any] = {"seeds": seeds, "neighbours": neighbours, "k_patches": k_patches, "gradient": gradient}
    make = partial(Job, root, parts=parts, options=head, device=place, **own)
    outcomes, lost = measured(task, found, make, as_json)
    report(task, parts, outcomes, as_json)
    for line in lost:
        click.echo(f"error: {line}", err=True)
    return UNKEPT if lost else 0


def measured(
    task: str, found: Wanted, make: Callable[..., Job], quiet: bool
) -> tuple[list[tuple[Version, Outcome]], list[str]]:
    """Return what a task gives for every version, which is kept in the manifest, and a line for each that could not be."""
    outcomes: list[tuple[Version, Outcome]] = []
    lost: list[str] = []
    jobs = [make(version=version, variants=names) for version, names in found]
    if not quiet:
        announce(task, jobs[0])
    with Progress("evaluating", "image" if task == "discovery" else "fit", quiet=quiet) as progress:
        fits = sum(len(job.variants) for job in jobs) * (jobs[0].seeds if task in TRAINS else 1)
        progress.start(len(jobs[0].parts.val) * len(jobs) if task == "discovery" else fits)
        for job in jobs:
            outcomes.append((job.version, TASKS[task](replace(job, advance=progress.advance))))
            told: dict[str, object] = dict(zip(("train", "val"), job.parts.where, strict=True))
            told |= {"images": job.parts.digest} | parameters(task, job)
            counts = len(job.parts.train), len(job.parts.val)
            try:
                keep_evaluations(job.root, job.version, task, outcomes[-1][1].figures, told, counts)
            except StoreError as error:  # hours of training are told all the same
                lost.append(f"figures of {job.version.name} are not kept: {error}")
    return outcomes, lost


def announce(task: str, job: Job) -> None:
    """Say which images are taken, and where it is computed."""
    parts = job.parts
    trained = f"{plural(len(parts.train), 'image')} to train on ({parts.where[0]}), " if parts.train else ""
    click.echo(f"{task} on {job.device}: {trained}{len(parts.val)} to judge by ({parts.where[1]})", err=True)


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


def images_for(task: str, root: Path, found: Wanted, train_where: str | None, val_where: str | None) -> Parts:
    """Return the images of a task: of one that learns nothing all that have what it needs."""
    needs = NEEDS.get(task)
    if needs == "box":
        check_boxes(root, found[0][0].dataset)
    if task in LEARNS:
        return parts_of(root, found, train_where, val_where, needs)
    if train_where is not None:
        raise click.UsageError(f"--task {task} learns nothing: leave --train-where out")
    return Parts((), common_images(root, found, val_where or "true", needs), ("", val_where or "true"))


def parameters(task: str, job: Job) -> dict[str, object]:
    """Return what decides a task's figures beside features and images."""
    if task in TRAINS:
        return asdict(job.options) | {"seeds": job.seeds} | ({"gradient": job.gradient} if task == "depth" else {})
    own = {"knn": {"neighbours": job.neighbours}, "discovery": {"k_patches": job.k_patches}}
    return dict(own.get(task, {"seeds": job.seeds}))


def report(task: str, parts: Parts, outcomes: list[tuple[Version, Outcome]], as_json: bool) -> None:
    """Print the figures, a line a version and variant."""
    lines: list[tuple[Version, str, list[Figure], Any]] = []
    first = outcomes[0][1], outcomes[0][1].figures[0].variant if outcomes[0][1].figures else ""
    for version, outcome in outcomes:
        for variant in dict.fromkeys(figure.variant for figure in outcome.figures):
            own = [figure for figure in outcome.figures if figure.variant == variant]
            peer = None if outcome is first[0] and variant == first[1] else difference(outcome, variant, *first)
            lines.append((version, variant, own, peer))
    if not lines:
        raise InputError("nothing can be judged: no pixel of the images to judge by has a value that counts")
    if as_json:
        counts = {"train_images": len(parts.train), "val_images": len(parts.val)}
        rows = [
            {"version": version.name, "method": version.method, "task": task} | asdict(figure) | counts
            for version, _, figures, _ in lines
            for figure in figures
        ]
        place = 0
        for _, _, figures, peer in lines:
            rows[place] |= (
                dict(zip(("difference", "difference_low", "difference_high"), peer, strict=True)) if peer else {}
            )
            place += len(figures)
        emit_json(rows)
        return
    names = [figure.metric for figure in lines[0][2]]
    delta = any(peer for *_, peer in lines)
    columns = ["version", "method", "variant", names[0], *([f"Δ {names[0]}"] if delta else []), *names[1:]]
    shown = []
    for version, variant, figures, peer in lines:
        cells = [bracketed(figure.value, figure.low, figure.high) for figure in figures]
        change = [bracketed(peer[0], peer[1], peer[2], "+") if peer else ""] if delta else []
        shown.append((version.name, version.method, variant, cells[0], *change, *cells[1:]))
    click.echo(table_text(columns, shown))


def difference(outcome: Outcome, variant: str, peer: Outcome, other: str) -> tuple[float, float, float] | None:
    """Return by how much the first metric differs from another variant's, with its interval; None where nothing is paired."""
    import dvt

    if variant in outcome.seeds and other in peer.seeds:
        pairs = zip(outcome.seeds[variant], peer.seeds[other], strict=True)
        return dvt.over_seeds([own - another for own, another in pairs])
    score = outcome.score
    if score is None or variant not in outcome.counts or other not in peer.counts:
        return None
    counts, others = outcome.counts[variant], peer.counts[other]
    value = float(score(counts.sum(dim=0)) - score(others.sum(dim=0)))
    return (value, *dvt.bootstrap(score, counts, others))


def bracketed(value: float, low: float, high: float, sign: str = "") -> str:
    """Return a figure with its interval, where it has one."""
    text = f"{value:{sign}.3f}"
    return text if low != low else f"{text} [{low:{sign}.3f}, {high:{sign}.3f}]"
