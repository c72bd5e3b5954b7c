"""Make one shard: read and decode ahead, compute, write behind. Idempotent, and ignorant of the manifest."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .compute import Decomposer, Decomposition
from .errors import CorruptError, DecodeError, InputError, NotInStoreError, RemoteError
from .images import decode
from .members import read_bytes
from .packing import PackedSample, pack_sample
from .pending import Planned, StoredRaw
from .quantise import quantise, to_half
from .reading import PREFIX, ShardReader
from .shard import Failure, ShardContents, ShardHeader, ShardWriter, read_contents

__all__ = ["Sealed", "ShardSpec", "run_shard"]

THREADS = max(2, min(16, os.cpu_count() or 2))
WRITES_IN_FLIGHT = 2
Advance = Callable[[int], None]


@dataclass(frozen=True)
class ShardSpec:
    """One shard to make: where, what it says of itself, and its images in order.

    ``beside`` are shards of other versions with the same images, made in the same pass; ``part`` says which of a decomposer's
    ``parts`` makes this one.
    """

    path: Path
    header: ShardHeader
    images: tuple[Planned, ...]
    part: int = 0
    beside: tuple["ShardSpec", ...] = ()


Sealed = tuple[ShardSpec, ShardContents, dict[str, float]]
"""A shard made beside another: its spec, what it holds, the seconds of each image."""


@dataclass(frozen=True)
class Loaded:
    """One image made ready for the model."""

    image: Planned
    prepared: Any


def run_shard(
    spec: ShardSpec, decomposer: Decomposer, advance: Advance = lambda count: None
) -> tuple[ShardContents, dict[str, float], tuple[Sealed, ...]]:
    """Compute and seal the shard that ``spec`` describes; where it is sealed already, return what it holds.

    Returns the contents and the seconds that each image took, by SHA-256; and the same of the shards beside, with their specs.
    An image that cannot be read or computed becomes a failure inside the shard and the rest goes on. ``advance`` is told
    of every image that is through. Raises whatever the decomposer raises that is not of one image alone.
    """
    everything = (spec, *spec.beside)
    todo = [one for one in everything if not one.path.exists()]
    made = dict(zip([one.path for one in todo], compute_shards(todo, decomposer, advance), strict=True)) if todo else {}
    found = [made.get(one.path) or (read_contents(one.path), {}) for one in everything]
    beside = tuple((one, *result) for one, result in zip(spec.beside, found[1:], strict=True))
    return *found[0], beside


def compute_shards(
    specs: Sequence[ShardSpec], decomposer: Decomposer, advance: Advance
) -> list[tuple[ShardContents, dict[str, float]]]:
    """Compute and seal shards of the same images, each by a part of the decomposer."""
    parts = [decomposer.parts[spec.part] if hasattr(decomposer, "parts") else decomposer for spec in specs]
    seconds: list[dict[str, float]] = [{} for _ in specs]
    with (
        ExitStack() as stack,
        ThreadPoolExecutor(THREADS) as readers,
        ThreadPoolExecutor(THREADS) as packers,
        ThreadPoolExecutor(1) as writer,
    ):
        shards = [stack.enter_context(ShardWriter(spec.path, spec.header, len(spec.images))) for spec in specs]
        writes: deque[Future[None]] = deque()
        loaded = read_ahead(readers, specs[0].images, decomposer)
        for batch in batches(loaded, shards, decomposer.batch_size, advance):
            with getattr(decomposer, "one_pass", nullcontext)():
                found = [compute(part, batch) for part in parts]
            for spec, shard, results, took_each in zip(specs, shards, found, seconds, strict=True):
                took_each |= took(batch, results)
                packed = [packers.submit(pack, *pair, spec.header) for pair in zip(batch, results, strict=True)]
                writes.append(writer.submit(write, shard, packed))
            while len(writes) > WRITES_IN_FLIGHT * len(specs):
                writes.popleft().result()
            advance(len(batch))
        for pending in writes:
            pending.result()
        return [(shard.seal(), each) for shard, each in zip(shards, seconds, strict=True)]


def read_ahead(
    pool: ThreadPoolExecutor, images: Sequence[Planned], decomposer: Decomposer
) -> Iterator[Loaded | Failure]:
    """Yield images ready for the model in order, working a batch or two ahead and no further."""
    depth = 2 * decomposer.batch_size + THREADS
    jobs: deque[Future[Loaded | Failure]] = deque()
    try:
        for image in images:
            jobs.append(pool.submit(load, image, decomposer))
            if len(jobs) >= depth:
                yield jobs.popleft().result()
        while jobs:
            yield jobs.popleft().result()
    finally:
        for job in jobs:
            job.cancel()


def load(image: Planned, decomposer: Decomposer) -> Loaded | Failure:
    """Read, check against the index, decode and prepare one image; or one raw map, checked against its checksum."""
    if image.given is not None:
        return load_given(image, decomposer)
    if image.stored is not None:
        return load_stored(image, image.stored, decomposer)
    try:
        data = read_bytes(image.path)
    except RemoteError:
        raise
    except OSError as error:
        return failure(image, "read", os.strerror(error.errno or 0))
    except DecodeError as error:
        return failure(image, "read", str(error))
    if hashlib.sha256(data).hexdigest() != image.sha256:
        return failure(image, "read", "the file changed since it was indexed: run featstore index again")
    try:
        return Loaded(image, decomposer.prepare(decode(data), image.sha256))
    except (DecodeError, ValueError) as error:
        return failure(image, "decode", str(error))


def load_stored(image: Planned, stored: StoredRaw, decomposer: Decomposer) -> Loaded | Failure:
    """Read and prepare one raw map with its prefix tokens."""
    try:
        reader = shard_reader(stored.shard)
        raw = reader.read("raw", stored.row, stored.checksum)
        prefix = reader.read(PREFIX, stored.row) if decomposer.prefix_tokens else None
    except (CorruptError, NotInStoreError) as error:
        return failure(image, "read", str(error))
    return Loaded(image, decomposer.prepare_stored(raw, prefix))  # type: ignore[attr-defined]


def load_given(image: Planned, decomposer: Decomposer) -> Loaded | Failure:
    """Have the decomposer read what it was given in place of the image."""
    try:
        return Loaded(image, decomposer.prepare_given(image.given))  # type: ignore[attr-defined]
    except (OSError, ValueError) as error:
        return failure(image, "read", " ".join(str(error).split()))


@lru_cache(maxsize=8)
def shard_reader(path: Path) -> ShardReader:
    """Return the reader of a sealed shard; the few used last stay open."""
    return ShardReader(path)


def failure(image: Planned, step: str, error: str) -> Failure:
    """Return the record of one image that did not make it."""
    return Failure(image.image_id, image.path, image.sha256, step, error)


def batches(
    loaded: Iterable[Loaded | Failure], shards: Sequence[ShardWriter], size: int, advance: Advance
) -> Iterator[list[Loaded]]:
    """Group images by ``size``; failures go straight to the shards' lists."""
    batch: list[Loaded] = []
    for item in loaded:
        if isinstance(item, Failure):
            for shard in shards:
                shard.fail(item)
            advance(1)
            continue
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def compute(decomposer: Decomposer, batch: Sequence[Loaded]) -> list[Decomposition | Failure]:
    """Run the model and the method; a ValueError is one image's own and is found by trying each alone."""
    try:
        return list(decomposer.decompose([item.prepared for item in batch]))
    except ValueError as error:
        if len(batch) == 1:
            return [failure(batch[0].image, "features", str(error))]
        return [result for item in batch for result in compute(decomposer, [item])]


def took(batch: Sequence[Loaded], results: Sequence[Decomposition | Failure]) -> dict[str, float]:
    """Return what each image took by SHA-256 [s], as far as the decomposer tells."""
    pairs = zip(batch, results, strict=True)
    return {
        item.image.sha256: result.stats["seconds"]
        for item, result in pairs
        if not isinstance(result, Failure) and "seconds" in result.stats
    }


@dataclass(frozen=True)
class Packed:
    """One image's sample as the shard takes it."""

    image: Planned
    sample: PackedSample
    stats: dict[str, float]


def pack(item: Loaded, result: Decomposition | Failure, header: ShardHeader) -> Packed | Failure:
    """Quantise one image's maps, take their checksums, compress them."""
    if isinstance(result, Failure):
        return result
    try:
        maps = quantise(result, header.variants)
        prefix = None if result.prefix is None else to_half("prefix token", np.asarray(result.prefix))
        sample = pack_sample(header, item.image.image_id, maps, prefix)
    except InputError as error:
        return failure(item.image, "features", str(error))
    stats = {name: value for name, value in result.stats.items() if name != "seconds"}
    return Packed(item.image, sample, stats)


def write(shard: ShardWriter, packed: Sequence[Future[Packed | Failure]]) -> None:
    """Add a batch to the shard, in order."""
    for job in packed:
        result = job.result()
        if isinstance(result, Failure):
            shard.fail(result)
            continue
        try:
            image = result.image
            shard.append(image.image_id, image.sha256, result.sample, result.stats)
        except InputError as error:
            shard.fail(failure(result.image, "features", str(error)))
