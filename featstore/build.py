"""Build a version: lock, plan, make shards, list them. Told its compute, knows no model."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path

from .builds import end_build
from .committing import Committer, together
from .compute import Decomposer
from .engines import Engine, LocalEngine
from .errors import SourceError
from .manifest import interruptible
from .notes import keep_notes
from .places import is_url
from .plan import Plan, Request, make_plan
from .query import restricted
from .registry import adopt, forget_damaged, free_shard_numbers, register_version
from .room import check_room
from .root import build_lock, ensure_root
from .run import ShardSpec
from .sealing import storing, sweep, write_text
from .shard import ShardHeader
from .snapshots import keep_snapshots

__all__ = ["BuildReport", "Listener", "build_version"]


@dataclass(frozen=True)
class Listener:
    """Who is told how a build goes: ``started`` with the plan, ``advanced`` with images done, ``said`` with a line."""

    started: Callable[[Plan], None] = lambda plan: None
    advanced: Callable[[int], None] = lambda count: None
    said: Callable[[str], None] = lambda line: None


@dataclass(frozen=True)
class BuildReport:
    """What a build did. Counts are images; ``failed`` counts wanted images that have no features at the end."""

    dataset: str
    backbone: str
    version: str
    digest: str
    method: str
    folder: str
    variants: tuple[str, ...]
    wanted: int
    present: int
    computed: int
    failed: int
    shards: int
    bytes: int
    seconds: float


def build_version(
    root: Path,
    request: Request,
    decomposer: Decomposer,
    listener: Listener | None = None,
    wait: float = 0.0,
    engine: Engine | None = None,
    force: bool = False,
) -> BuildReport:
    """Compute what is wanted and not stored yet, shard by sealed shard.

    Killed at any moment and called again, it goes on after the last sealed shard and ends with the same bytes. ``engine``
    makes the shards, here by default; one that has workers elsewhere is told by ``decomposer`` only what they are to compute.
    A build that does not fit on the disk is refused unless ``force``. Raises LockedError while another build holds the root,
    StoreError where it cannot be written or does not fit, WorkerError where workers end and nobody takes over, and what
    ``make_plan`` raises.
    """
    listener = listener or Listener()
    started = time.monotonic()
    ensure_root(root)
    with build_lock(root, wait), interruptible():
        plan = fitting_plan(root, request, decomposer, listener, force)
        provenance = json.dumps(request.environment | request.provenance)
        version, number = register_version(root, plan, decomposer.method, provenance)
        plan = recover(root, plan, request, decomposer, listener)
        keep_snapshots(root, plan.dataset)  # of a data set that an older featstore indexed
        keep_notes(root, plan.dataset)
        listener.started(plan)
        computed = failed = shards = size = 0
        specs = list(shard_specs(root, plan, decomposer, request))
        makers = (engine or LocalEngine()).make_shards(specs, decomposer, listener.advanced, listener.said)
        with Committer(root) as committer, closing(makers) as made:
            for spec, contents, took in made:
                if contents.failures and request.stored is None:
                    require_source(root, plan.dataset, spec.path)
                committer.add(spec.path, contents, took)
                computed += len(contents.image_ids)
                failed += len(contents.failures)
                if contents.image_ids:
                    shards += 1
                    size += contents.bytes
        if number is not None:
            end_build(root, number, computed, failed, shards, size)
        keep_notes(root, plan.dataset)
    return BuildReport(
        dataset=plan.dataset,
        backbone=plan.backbone,
        version=version,
        digest=plan.recipe.digest,
        method=decomposer.method,
        folder=str(plan.folder),
        variants=plan.variants,
        wanted=plan.wanted,
        present=plan.present,
        computed=computed,
        failed=failed + plan.failed_before,
        shards=shards,
        bytes=size,
        seconds=time.monotonic() - started,
    )


def fitting_plan(root: Path, request: Request, decomposer: Decomposer, listener: Listener, force: bool) -> Plan:
    """Return the plan, once what a killed build was writing is gone; raises StoreError where it does not fit on the disk."""
    plan = make_plan(root, request, decomposer)
    for leftover in sweep(plan.folder):
        listener.said(f"removed {leftover.name}, left by a build that was killed")
    if not force:
        check_room(root, plan)
    return plan


def require_source(root: Path, dataset: str, shard: Path) -> None:
    """Raise SourceError where the images' folder is gone: its disk is, not each of its images.

    A shard that could not read them is removed, so that the same command makes it whole once the folder is back.
    """
    with restricted(root, dataset) as connection:
        source = connection.execute("SELECT source FROM datasets").fetchall()[0][0]
    if source and not is_url(source) and not Path(source).exists():
        shard.unlink(missing_ok=True)
        raise SourceError(f"the folder of {dataset}, {source}, is gone: the same command goes on once it is back")


def recover(root: Path, plan: Plan, request: Request, decomposer: Decomposer, listener: Listener) -> Plan:
    """Take a killed build's sealed shards in, and plan again where that changed anything."""
    recipe = plan.folder / "recipe.json"
    with storing(recipe):
        plan.folder.mkdir(parents=True, exist_ok=True)
        if not recipe.is_file() or recipe.read_text(encoding="utf-8") != plan.recipe.text:
            write_text(recipe, plan.recipe.text)
    damaged = forget_damaged(root, plan.recipe.digest)
    for path in damaged:
        listener.said(f"{path} is missing or cut short: its images are computed again")
        (root / path).unlink(missing_ok=True)
    with together(root):
        adopted, foreign = adopt(root, plan)
    for line in foreign:
        listener.said(line)
    if adopted:
        listener.said(f"took in {adopted} sealed shard{'s' * (adopted > 1)} of a build that was killed")
    return make_plan(root, request, decomposer) if adopted or damaged else plan


def shard_specs(root: Path, plan: Plan, decomposer: Decomposer, request: Request) -> Iterator[ShardSpec]:
    """Cut what is to do into shards, in order."""
    header = ShardHeader(
        dataset=plan.dataset,
        backbone=plan.backbone,
        digest=plan.recipe.digest,
        recipe=plan.recipe.text,
        variants=plan.variants,
        grid=decomposer.grid,
        channels=decomposer.width,
        prefix_tokens=decomposer.prefix_tokens,
        provenance=json.dumps(request.environment, sort_keys=True),
        fine_grid=plan.fine_grid,
        store=plan.store,
        codec=plan.codec,
    )
    numbers = free_shard_numbers(root, plan.folder)
    for grid, images in groupby(plan.todo, lambda image: image.grid or plan.grid):
        left = iter(images)
        while chosen := tuple(islice(left, plan.shard_size)):
            yield ShardSpec(plan.folder / f"shard-{next(numbers):05d}.h5", replace(header, grid=grid), chosen)
