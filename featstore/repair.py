"""Repair a store: put shards back, write damaged ones again, list what is whole. Computes only what is damaged."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import manifest
from .compute import Decomposer
from .contents import Failure, ShardContents, read_contents
from .drafts import drafts_of, is_sealed
from .errors import CorruptError, NotInStoreError
from .examination import stored_sums
from .findings import Action, Finding, VerifyReport
from .listed import ListedShard, features_of, listed_shards
from .putting_back import list_sealed, move_back, restore_recipes
from .relist import drop_dangling, relist_shard
from .remake import Draft, Remade, Slot, good_rows, reader_of, remake
from .root import build_lock
from .sealing import sweep
from .verify import Watcher, check_shard, verify_store
from .versions import Version, list_versions

__all__ = ["MakeDecomposer", "RepairReport", "repair_store"]

MakeDecomposer = Callable[[Version], Decomposer]


@dataclass
class RepairReport:
    """What was damaged, what was done about it, and what is damaged still; ``dropped`` rows pointed to nothing."""

    dry_run: bool
    before: VerifyReport
    actions: list[Action] = field(default_factory=list)
    dropped: int = 0
    left: list[Finding] = field(default_factory=list)

    @property
    def recomputed(self) -> int:
        """Return how many samples were computed again."""
        return sum(action.recomputed for action in self.actions)

    @property
    def lost(self) -> list[Failure]:
        """Return images that cannot be read or computed any more, with the reason."""
        return [failure for action in self.actions for failure in action.lost]


def repair_store(
    root: Path,
    name: str | None,
    decomposer: MakeDecomposer,
    dry_run: bool = False,
    wait: float = 0.0,
    watcher: Watcher | None = None,
) -> RepairReport:
    """Verify, and mend what is damaged; ``decomposer`` makes what computes a version, and is asked only where needed.

    A damaged shard is written again under its name: samples whose checksums hold are copied, the others computed. Holds the
    build lock. Raises LockedError while a build holds it, NotInStoreError for a name that means nothing, StoreError where the
    disk refuses, and what ``decomposer`` raises.
    """
    watcher = watcher or Watcher()
    with build_lock(root, wait):
        before = verify_store(root, name, watcher=watcher)
        report = RepairReport(dry_run, before)
        if not before.damage:
            return report
        report.actions += restore_recipes(root, before.damage, dry_run)
        report.actions += move_back(root, before.findings, dry_run)
        done = {action.path for action in report.actions}
        strays = [finding for finding in before.findings if (root / finding.path).exists()]
        report.actions += list_sealed(root, strays, dry_run)
        by_path: dict[str, list[Finding]] = {}
        for finding in before.damage:
            by_path.setdefault(finding.path, []).append(finding)
        with manifest.reading(root) as connection:
            shards = [shard for shard in listed_shards(connection) if shard.path in by_path.keys() - done]
        watcher.started(sum(shard.samples for shard in shards))
        makers = Makers(root, decomposer)
        for shard in shards:
            if not dry_run:
                sweep((root / shard.path).parent)
            report.actions.append(mend(root, shard, by_path[shard.path], makers, dry_run, watcher.advanced))
        report.dropped = drop_dangling(root, dry_run)
        report.left = [] if dry_run else still_damaged(root, name, shards)
    return report


class Makers:
    """Keeps the decomposer of the version at hand, and no other."""

    def __init__(self, root: Path, make: MakeDecomposer) -> None:
        self.make = make
        with manifest.reading(root) as connection:
            self.versions = {version.digest: version for version in list_versions(connection)}
        self.digest: str = ""
        self.made: Decomposer | None = None

    def get(self, digest: str) -> Decomposer:
        """Return what computes a version; raises NotInStoreError where no version has the recipe."""
        if self.made is None or self.digest != digest:
            if digest not in self.versions:
                raise NotInStoreError(f"no version has recipe {digest[:12]}: featstore manifest rebuild restores it")
            self.made = None  # two models may not fit into memory
            self.made, self.digest = self.make(self.versions[digest]), digest
        return self.made


def mend(
    root: Path,
    shard: ListedShard,
    findings: Sequence[Finding],
    makers: Makers,
    dry_run: bool,
    advance: Callable[[int], None],
) -> Action:
    """Write one damaged shard again; where the file is as it was sealed, list it again."""
    path = root / shard.path
    if is_sealed(root, shard) and not any(finding.kind in ("sample", "residual") for finding in findings):
        if not dry_run:
            relist_shard(root, shard.shard_id, path, read_contents(path))
        advance(shard.samples)
        return Action("listed", shard.path, f"{shard.samples} samples, as the file has them", same=True)
    rows = features_of(root, [shard.shard_id])[shard.shard_id]
    drafts = drafts_of(root, shard, rows, findings)
    first = next(drafts, None)
    if first is None:
        raise NotInStoreError(f"{shard.path} belongs to no version: featstore manifest rebuild restores that first")
    if dry_run:
        good, count = len(good_rows(first, reader_of(first))), len(first.slots)
        return Action("rewritten", shard.path, f"{count} samples", good, count - good)
    made = remake(first, lambda: makers.get(shard.digest), advance)
    contents = settle(shard, first, drafts, made)
    relist_shard(root, shard.shard_id, path, contents, made.seconds)
    same = None if shard.checksum is None else contents.digest == shard.checksum
    text = f"{len(contents.image_ids)} samples"
    return Action("rewritten", shard.path, text, made.copied, made.recomputed, tuple(made.lost), same)


def settle(shard: ListedShard, first: Draft, others: Iterator[Draft], made: Remade) -> ShardContents:
    """Write other drafts of the same samples where the first has not the digest listed; none has: it stays the first."""
    contents = made.contents
    slots = tuple(summed(first, contents))
    if made.lost or shard.checksum is None or slots != first.slots:
        return contents
    for draft in [*others, first]:
        if contents.digest == shard.checksum:
            break
        again = replace(draft, slots=slots, donor=draft.path, unsummed=frozenset())
        contents = remake(again, no_decomposer, lambda count: None).contents
    return contents


def summed(draft: Draft, contents: ShardContents) -> Iterator[Slot]:
    """Yield the samples with the checksums that were written."""
    sums = stored_sums(contents)
    for number, slot in enumerate(draft.slots[: len(contents.sha256s)]):
        yield replace(slot, sums={name: int(values[number]) for name, values in sums.items()})


def no_decomposer() -> Decomposer:
    """Refuse: what has just been written is whole."""
    raise CorruptError("what was written a moment ago cannot be read back")


def still_damaged(root: Path, name: str | None, shards: Sequence[ListedShard]) -> list[Finding]:
    """Return what is damaged after all, in the tables and in the shards that were mended."""
    left = verify_store(root, name, quick=True).damage
    with manifest.reading(root) as connection:
        again = {shard.path: shard for shard in listed_shards(connection)}
    for shard in (again[shard.path] for shard in shards if shard.path in again):
        rows = features_of(root, [shard.shard_id])[shard.shard_id]
        left += [finding for finding in check_shard(root, shard, rows) if finding.damage and finding not in left]
    return left
