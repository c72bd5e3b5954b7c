"""Write a damaged shard again: the same images in the same order, good samples copied, the others computed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compute import Decomposer
from .contents import Failure, ShardContents, opened, read_contents
from .errors import CorruptError, FeatstoreError
from .examination import KEPT, Row, stored_sums
from .layout import INT8, PREFIX, ShardHeader
from .listed import ListedShard, sum_column
from .packing import PackedSample, pack_sample
from .plan import Planned
from .quantise import DERIVABLE, checksum, residual_of
from .reading import ShardReader
from .run import compute, load, pack
from .shard import ShardWriter

__all__ = ["Draft", "Remade", "Slot", "good_rows", "readable", "reader_of", "remake", "slots_of"]


@dataclass(frozen=True)
class Slot:
    """One sample that the shard should have: where it may be copied from, and what its checksums must be."""

    image_id: str
    sha256: str
    paths: tuple[str, ...]
    sums: Mapping[str, int]
    stats: Mapping[str, float]


@dataclass(frozen=True)
class Draft:
    """What a shard should be. ``donor`` is the damaged file where HDF5 can read it.

    ``unsummed`` are samples whose residual is not what the other parts leave over, though its checksum holds.
    """

    path: Path
    header: ShardHeader
    slots: tuple[Slot, ...]
    failures: tuple[Failure, ...]
    donor: Path | None
    unsummed: frozenset[int] = frozenset()


@dataclass
class Counts:
    """How many samples were copied and computed, which images are lost, and what each took, by SHA-256 [s]."""

    copied: int = 0
    recomputed: int = 0
    lost: list[Failure] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Remade:
    """A shard written again; the rest as in ``Counts``."""

    contents: ShardContents
    copied: int
    recomputed: int
    lost: list[Failure]
    seconds: dict[str, float]


def readable(path: Path, listed: ListedShard) -> ShardContents | None:
    """Return what a damaged file holds, None where it cannot be read or is of another recipe."""
    try:
        contents = read_contents(path, sealed=False)
    except FeatstoreError:
        return None
    return contents if contents.header.digest == listed.digest else None


def slots_of(
    samples: int, rows: Sequence[Row], contents: ShardContents | None, images: Mapping[str, list[tuple[str, str]]]
) -> list[Slot]:
    """Return the ``samples`` that a shard should have, in order: the manifest's rows, where it has none the file's own.

    ``images`` gives (image_id, path) of each SHA-256, the likeliest first.
    """
    listed = {row["shard_row"]: row for row in rows}
    sums = stored_sums(contents) if contents else {}
    own_count = len(contents.sha256s) if contents else 0
    slots: list[Slot] = []
    for number in range(max([samples, *(place + 1 for place in listed)])):
        row = listed.get(number)
        inside = number < own_count
        own = contents.sha256s[number] if contents and inside and own_count == samples else None
        sha256 = str(row["sha256"] if row else own or "")
        if not sha256 or sha256 in {slot.sha256 for slot in slots}:
            continue  # a newer shard has it and nobody remembers what it was, or the manifest has it twice
        known = images.get(sha256, [])
        name = contents.image_ids[number] if contents and inside and contents.sha256s[number] == sha256 else ""
        if name not in [image_id for image_id, _ in known]:
            name = known[0][0] if known else name or sha256
        stats = {key: float(values[number]) for key, values in contents.stats.items()} if contents and inside else {}
        expected = {key: int(values[number]) for key, values in sums.items()} if inside else {}
        if row:
            stats = {key: np.nan for key in stats if key in KEPT} | {
                key: row[key] for key in KEPT if row[key] is not None
            }
            told = {
                key: row.get(sum_column(key)) for key in ("raw", "clean", "artifact", "residual", "clean_fine", PREFIX)
            }
            expected |= {key: value for key, value in told.items() if value is not None}
        slots.append(Slot(name, sha256, tuple(path for _, path in known), expected, stats))
    return slots


def reader_of(draft: Draft) -> ShardReader | None:
    """Return what reads the damaged file, None where nothing does."""
    if draft.donor is None:
        return None
    try:
        return ShardReader(draft.donor)
    except FeatstoreError:
        return None


def good_rows(draft: Draft, reader: ShardReader | None) -> dict[int, PackedSample | None]:
    """Return the samples that need not be computed: None for those to copy, made anew where only the residual is lost."""
    good: dict[int, PackedSample | None] = {}
    if reader is None:
        return good
    for number, slot in enumerate(draft.slots):
        maps, bad = {}, []
        for name in draft.header.shapes():
            try:
                maps[name] = reader.read(name, number, slot.sums.get(name))
            except FeatstoreError:
                bad.append(name)
        if number in draft.unsummed:
            bad.append("residual")
        if not bad and slot.sums.keys() >= set(draft.header.variants):
            good[number] = None
        elif bad == ["residual"] and maps.keys() >= set(DERIVABLE) and draft.header.store != INT8:
            maps["residual"] = residual_of(*(maps[name] for name in DERIVABLE))
            if number in draft.unsummed or checksum(maps["residual"]) == slot.sums.get("residual"):
                prefix = maps.pop(PREFIX, None)
                good[number] = pack_sample(draft.header, slot.image_id, maps, prefix)
    return good


def remake(draft: Draft, decomposer: Callable[[], Decomposer], advance: Callable[[int], None]) -> Remade:
    """Write the shard under its own name. ``decomposer`` is called where something has to be computed.

    An image that cannot be read any more becomes a failure of the shard and the rest goes on. Raises StoreError where the
    disk refuses.
    """
    reader, made = reader_of(draft), Counts()
    good = good_rows(draft, reader)
    size = decomposer().batch_size if len(good) < len(draft.slots) else 16
    with ShardWriter(draft.path, draft.header, len(draft.slots) + len(draft.failures), replace=True) as shard:
        for start in range(0, len(draft.slots), size):
            numbers = range(start, min(start + size, len(draft.slots)))
            wanted = [number for number in numbers if number not in good]
            fresh = dict(zip(wanted, computed(draft, wanted, decomposer, made), strict=True)) if wanted else {}
            for number in numbers:
                slot = draft.slots[number]
                if number in fresh:
                    sample, stats = fresh[number]
                else:
                    sample, stats = good[number] or copied(draft.donor, reader, number, draft.header, slot), slot.stats
                if isinstance(sample, Failure):
                    made.lost.append(sample)
                    continue
                shard.append(slot.image_id, slot.sha256, sample, stats)
            made.copied += len(numbers) - len(wanted)
            advance(len(numbers))
        for failure in (*draft.failures, *made.lost):
            shard.fail(failure)
        return Remade(shard.seal(), **vars(made))


def copied(path: Path | None, reader: ShardReader | None, number: int, header: ShardHeader, slot: Slot) -> PackedSample:
    """Return the chunks of a sample as they lie in the file, filters and all."""
    if path is None or reader is None:
        raise CorruptError("there is no file to copy from")
    chunks: dict[str, bytes | NDArray[Any]] = {}
    with path.open("rb") as file:
        for name in header.parts():
            place = reader.chunks[name].place(number)
            if place is None:
                with opened(path) as source:
                    data = source[name]
                    chunks[name] = data.id.read_direct_chunk((number, *[0] * (data.ndim - 1)))[1]
                continue
            file.seek(place[0])
            known = reader.chunks[name]
            # Without a filter the length follows from the shape, and what the damaged file says of it may be wrong.
            chunks[name] = file.read(place[1] if known.filters else known.count * known.dtype.itemsize)
    return PackedSample(chunks, dict(slot.sums))


def computed(
    draft: Draft, numbers: Sequence[int], decomposer: Callable[[], Decomposer], made: Counts
) -> Iterator[tuple[PackedSample | Failure, Mapping[str, float]]]:
    """Yield samples computed again, or why they cannot be."""
    model = decomposer()
    loaded = [load_any(draft.slots[number], model) for number in numbers]
    ready = [item for item in loaded if not isinstance(item, Failure)]
    results = iter(compute(model, ready) if ready else [])
    for item in loaded:
        if isinstance(item, Failure):
            yield item, {}
            continue
        result = next(results)
        packed = pack(item, result, draft.header)
        if isinstance(packed, Failure):
            yield packed, {}
            continue
        if not isinstance(result, Failure) and "seconds" in result.stats:
            made.seconds[item.image.sha256] = result.stats["seconds"]
        made.recomputed += 1
        yield packed.sample, packed.stats


def load_any(slot: Slot, decomposer: Decomposer) -> Any:
    """Read an image from the first place that still has it; a Failure where none has."""
    failure: Any = Failure(slot.image_id, "", slot.sha256, "read", "no data set lists an image of these bytes")
    for path in slot.paths:
        item = load(Planned(slot.image_id, path, slot.sha256, 0), decomposer)
        if not isinstance(item, Failure):
            return item
        failure = item
    return failure
