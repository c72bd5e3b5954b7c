"""One training from its first step, or its last checkpoint, to the denoiser in the manifest."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featstore.curves import EventLog, draw_curve
from featstore.denoisers import register_denoiser
from featstore.errors import InputError, NotInStoreError
from featstore.pairs import PairSet, StepOrder
from featstore.pooled import pool_artifact
from featstore.recipe import Recipe, canonical
from featstore.training_run import TrainingRun

from .distributed import Member
from .environment import device_name, installed_versions, provenance
from .printing import plural
from .progress import Progress

if TYPE_CHECKING:
    from dvt import Denoiser, Trainer, TrainOptions, Validation

__all__ = ["Outcome", "judged_text", "run_training"]

TOLD_EVERY = 10


@dataclass(frozen=True)
class Outcome:
    """What a training came to."""

    name: str
    run: TrainingRun
    steps: int
    judged: "Validation"
    digest: str
    resumed: int


def run_training(
    root: Path,
    pairs: PairSet,
    settings: "TrainOptions",
    member: Member,
    place: Any,
    workers: int,
    compiled: bool,
    restart: bool,
    quiet: bool,
) -> Outcome:
    """Train to the end, judge the best and list it."""
    import dvt

    StepOrder(len(pairs.train), settings.batch, settings.steps, world=member.world)  # raises before anything is written
    recipe = training_recipe(pairs, settings)
    folder = TrainingRun(root, pairs.version.dataset, pairs.version.backbone, recipe)
    grid = pairs.version.grid if settings.position else None
    fresh = dvt.Denoiser.fresh(pairs.version.channels, grid, settings.blocks, settings.seed)
    if settings.position and settings.start == "artifact":
        fresh.begin_without(dvt.as_map(mean_artifact(root, pairs)))
    trainer = dvt.Trainer(fresh, settings, place, compiled=compiled)
    if not member.leads:
        member.wait()
        resume(folder, trainer)
        take_steps(pairs, trainer, member, workers, None, Progress("training", "step", quiet=True))
        return Outcome("", folder, trainer.step, trainer.judge(()), "", 0)
    with folder.held(restart), Progress("training", "step", quiet=quiet) as progress:
        resumed = resume(folder, trainer)
        folder.rewind(resumed)
        member.wait()
        progress.say(
            f"{plural(len(pairs.train), 'image')} of {pairs.version.name} to train on, {len(pairs.heldout)} held out; "
            + (f"on from step {resumed}" if resumed else f"{settings.steps} steps of {settings.batch}")
        )
        progress.start(settings.steps)
        progress.advance(resumed)
        take_steps(pairs, trainer, member, workers, folder, progress)
        draw_curve(folder.curve(), folder.plot, f"denoiser of {pairs.version.name}")
        best = trainer.result()
        return conclude(root, pairs, recipe, folder, best, trainer, resumed)


def mean_artifact(root: Path, pairs: PairSet) -> NDArray[np.float32]:
    """Return the mean artifact (H, W, C) of the images to train on, as stage 1 found it."""
    try:
        return pool_artifact(root, pairs.version.name, set(pairs.shas(pairs.train))).mean
    except NotInStoreError as error:
        raise InputError(
            f"{pairs.version.name} does not store the artifact, which training starts from: build it with it, "
            "or give --start random"
        ) from error


def training_recipe(pairs: PairSet, settings: "TrainOptions") -> Recipe:
    """Return everything that decides what is learned."""
    images = {
        part: canonical(pairs.shas(places)) for part, places in (("train", pairs.train), ("heldout", pairs.heldout))
    }
    return Recipe.of(
        {
            "backbone": pairs.data.recipe["backbone"],
            "version": pairs.version.digest,
            "images": {part: Recipe.of({"images": text}).digest for part, text in images.items()},
            "train": asdict(settings),
        }
    )


def resume(folder: TrainingRun, trainer: "Trainer") -> int:
    """Go back to the last checkpoint where there is one; returns its step."""
    from dvt import read_state

    if folder.checkpoint.is_file():
        trainer.restore(*read_state(folder.checkpoint))
    return trainer.step


def take_steps(
    pairs: PairSet, trainer: "Trainer", member: Member, workers: int, folder: TrainingRun | None, progress: Progress
) -> None:
    """Take the steps that are left; the leader (with a folder) writes curve and checkpoints."""
    if trainer.finished:
        return
    settings = trainer.options
    order = StepOrder(
        len(pairs.train), settings.batch, settings.steps, trainer.step, settings.seed, member.rank, member.world
    )
    batches = pairs.batches(order, workers, pin=trainer.device.type == "cuda")
    unseen = pairs.unseen(max(1, settings.batch // member.world))
    log = EventLog(folder.folder, trainer.step) if folder else None
    rows: list[Mapping[str, Any]] = []
    for step in trainer.run(batches, unseen):
        progress.advance(1)
        if folder is None or log is None:
            continue
        if step.validation or step.step % TOLD_EVERY == 0:
            rows.append(step.row())
            log.add(rows[-1])
        if step.validation:
            told = step.validation
            progress.say(f"step {step.step}: {judged_text(told)}")
            log.flush()
            folder.append(rows)
            folder.save(trainer.to_bytes())
            rows = []
    if log is not None:
        log.close()


def judged_text(judged: "Validation") -> str:
    """Return a validation in words."""
    return (
        f"held out: cosine to clean {judged.cosine:.4f} (raw {judged.raw_cosine:.4f}), "
        f"mse {judged.mse:.4g} (raw {judged.raw_mse:.4g})"
    )


def conclude(
    root: Path, pairs: PairSet, recipe: Recipe, folder: TrainingRun, best: "Denoiser", trainer: "Trainer", resumed: int
) -> Outcome:
    """Judge the best, take the artifact's mean over all images, write the denoiser and list it."""
    import dvt

    settings, place = trainer.options, trainer.device
    judged = dvt.validate(best.to(place), pairs.unseen(settings.batch), place, settings.dtype)
    artifact = dvt.position_mean(dvt.cleaned(best, pairs.every(settings.batch), place, settings.dtype))
    version = pairs.version
    facts: dict[str, Any] = {
        "backbone": pairs.data.recipe["backbone"],
        "trained_on": version.digest,
        "run": recipe.digest,
    }
    facts |= {"artifact_images": len(pairs.train) + len(pairs.heldout), "dtype": settings.dtype}
    folder.finish(best.to_bytes(facts, artifact))
    row: dict[str, Any] = {
        "dataset": version.dataset,
        "backbone": version.backbone,
        "digest": best.digest(),
        "run": recipe.digest,
    }
    row |= {"path": folder.denoiser.relative_to(root).as_posix(), "trained_on": version.digest}
    row |= {"images": len(pairs.train), "heldout_images": len(pairs.heldout), "steps": trainer.step}
    row |= {"cosine": judged.cosine, "raw_cosine": judged.raw_cosine, "mse": judged.mse, "raw_mse": judged.raw_mse}
    row |= {"position_share": judged.position, "raw_position_share": judged.raw_position}
    made_by = installed_versions() | {"device": device_name(place)} | provenance()
    row |= {"recipe": recipe.text, "provenance": json.dumps(made_by)}
    number, _ = register_denoiser(root, row, pairs.shas(pairs.train), pairs.shas(pairs.heldout))
    name = f"{version.dataset}/{version.backbone}/d{number}"
    return Outcome(name, folder, trainer.step, judged, row["digest"], resumed)
