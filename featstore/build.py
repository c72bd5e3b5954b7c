"""Build a version: lock, plan, make shards, list them. Told its compute, knows no model."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from .builds import end_build
from .committing import Committer, together
from .compute import Decomposer
from .cuts import cut
from .engines import Engine, LocalEngine
from .errors import SourceError
from .manifest import interruptible, reading
from .notes import keep_notes
from .places import is_url
from .plan import Plan, Request, make_plan
from .query import viewed
from .registry import adopt, forget_damaged, register_version
from .room import check_room
from .root import build_lock, ensure_root
from .sealing import storing, sweep, write_text
from .shard import ShardContents
from .snapshots import keep_snapshots

__all__ = ["BuildReport", "Listener", "build_version", "build_versions"]


@dataclass(frozen=True)
class Listener:
    """Who is told how a build goes: ``started`` with how many images, ``advanced`` with those done, ``said`` with a line."""

    started: Callable[[int], None] = lambda count: None
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
    return build_versions(root, [request], decomposer, listener, wait, engine, force)[0]


def build_versions(
    root: Path,
    requests: Sequence[Request],
    decomposer: Decomposer,
    listener: Listener | None = None,
    wait: float = 0.0,
    engine: Engine | None = None,
    force: bool = False,
) -> list[BuildReport]:
    """As ``build_version``, for several versions of the same images in one pass: a request for each of its ``parts``."""
    listener = listener or Listener()
    started = time.monotonic()
    parts: Sequence[Decomposer] = getattr(decomposer, "parts", (decomposer,))
    ensure_root(root)
    with build_lock(root, wait), interruptible():
        plans = fitting_plans(root, requests, parts, listener, force)
        tallies = []
        for number, (request, part) in enumerate(zip(requests, parts, strict=True)):
            provenance = json.dumps(request.environment | request.provenance)
            tallies.append(Tally(*register_version(root, plans[number], part.method, provenance)))
            plans[number] = recover(root, plans[number], request, part, listener)
        with reading(root):  # opened once for all three
            keep_snapshots(root, plans[0].dataset)  # of a data set that an older featstore indexed
            keep_notes(root, plans[0].dataset)
            specs = list(cut(root, plans, requests, parts))
        listener.started(sum(len(spec.images) for spec in specs))
        makers = (engine or LocalEngine()).make_shards(specs, decomposer, listener.advanced, listener.said)
        with Committer(root) as committer, closing(makers) as made:
            for spec, contents, took, beside in made:
                for own, holds, seconds in ((spec, contents, took), *beside):
                    if holds.failures and requests[own.part].stored is None:
                        require_source(root, plans[0].dataset, own.path)
                    committer.add(own.path, holds, seconds)
                    tallies[own.part].add(holds)
        for tally in tallies:
            if tally.build is not None:
                end_build(root, tally.build, tally.computed, tally.failed, tally.shards, tally.bytes)
        keep_notes(root, plans[0].dataset)
    took_all = time.monotonic() - started
    return [report(*each, took_all) for each in zip(plans, parts, tallies, strict=True)]


@dataclass
class Tally:
    """What a build has done for one version: its name, its build's number in the log, and counts."""

    version: str
    build: int | None
    computed: int = 0
    failed: int = 0
    shards: int = 0
    bytes: int = 0

    def add(self, contents: ShardContents) -> None:
        """Count a sealed shard; one without a sample was not kept."""
        self.computed += len(contents.image_ids)
        self.failed += len(contents.failures)
        if contents.image_ids:
            self.shards += 1
            self.bytes += contents.bytes


def report(plan: Plan, decomposer: Decomposer, tally: Tally, seconds: float) -> BuildReport:
    """Return what a build did for one version."""
    return BuildReport(
        dataset=plan.dataset,
        backbone=plan.backbone,
        version=tally.version,
        digest=plan.recipe.digest,
        method=decomposer.method,
        folder=str(plan.folder),
        variants=plan.variants,
        wanted=plan.wanted,
        present=plan.present,
        computed=tally.computed,
        failed=tally.failed + plan.failed_before,
        shards=tally.shards,
        bytes=tally.bytes,
        seconds=seconds,
    )


def fitting_plans(
    root: Path, requests: Sequence[Request], parts: Sequence[Decomposer], listener: Listener, force: bool
) -> list[Plan]:
    """Return the plans, once what a killed build was writing is gone; raises StoreError where they do not fit on the disk."""
    plans = [make_plan(root, *each) for each in zip(requests, parts, strict=True)]
    for plan in plans:
        for leftover in sweep(plan.folder):
            listener.said(f"removed {leftover.name}, left by a build that was killed")
    if not force:
        check_room(root, plans)
    return plans


def require_source(root: Path, dataset: str, shard: Path) -> None:
    """Raise SourceError where the images' folder is gone: its disk is, not each of its images.

    A shard that could not read them is removed, so that the same command makes it whole once the folder is back.
    """
    with viewed(root, dataset) as connection:
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
