"""Batches: one block of memory a variant, filled in the order of the disk."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .aligned import Stored
from .crops import Part
from .places import as_remote
from .reading import PREFIX, ShardReader, Window
from .samples import Allocate, allocate

__all__ = ["read_blocks", "read_ragged", "reshared", "window_of"]

Read = tuple[ShardReader, int, int]
"""A sample to read: its shard, its row there, its place in the batch."""

ENOUGH = 4


def reshared(number: Tensor) -> Tensor:
    """Return a number in shared memory, where it lies there already itself: workers that run already hear of a change."""
    made: Any = number
    shared: Tensor = made if made.is_shared() else made.clone().share_memory_()
    return shared


def read_blocks(
    stored: Sequence[Stored],
    places: Sequence[int],
    parts: Sequence[Part | None],
    prefix: bool,
    dtype: torch.dtype,
    verify: bool,
    make: Allocate = allocate,
) -> dict[str, Tensor]:
    """Read samples of every version, in the order of their shards, into one tensor (N, C, h, w) a variant.

    The tensors are views of (N, h, w, C) memory, as single items are. ``parts`` are the crops of the places.
    """
    blocks: dict[str, Tensor] = {}
    for version in stored:
        shards, rows = version.shard[places], version.row[places]
        names = [(column.key, column.name, column.number) for column in version.columns]
        names += [(version.prefix + "prefix", PREFIX, -1)] if prefix else []
        if as_remote(version.pool.paths[0]) is not None:
            version.pool.fetch([name for _, name, _ in names], zip(shards.tolist(), rows.tolist(), strict=True))
        reads = [(version.pool[shards.item(k)], rows.item(k), k) for k in np.lexsort((rows, shards)).tolist()]
        read_ahead(reads, [name for _, name, _ in names], parts)
        for key, name, number in names:
            block = empty_block(reads[0][0], name, parts[reads[0][2]], len(places), dtype, make)
            fill(block, reads, name, parts, version.checksums[places, number] if verify and number >= 0 else None)
            blocks[key] = block if block.ndim == 3 else block.permute(0, 3, 1, 2)
    return blocks


def read_ragged(
    stored: Sequence[Stored],
    places: Sequence[int],
    prefix: bool,
    dtype: torch.dtype,
    verify: bool,
    make: Allocate = allocate,
) -> dict[str, Tensor | list[Tensor]]:
    """As ``read_blocks`` for samples on several grids: a list of (C, H, W) a variant, those of one grid in one block."""
    grids = np.stack([one.grids[one.shard[list(places)]] for one in stored], axis=1).reshape(len(places), -1)
    _, group = np.unique(grids, axis=0, return_inverse=True)
    found: dict[str, list[Tensor]] = {}
    for number in range(int(group.max()) + 1):
        chosen = np.flatnonzero(group == number).tolist()
        own = [places[k] for k in chosen]
        for key, block in read_blocks(stored, own, [None] * len(own), prefix, dtype, verify, make).items():
            values = found.setdefault(key, [block] * len(places))
            for row, k in enumerate(chosen):
                values[k] = block[row]
    alike = {key for key, values in found.items() if len({value.shape for value in values}) == 1}
    return {key: torch.stack(values) if key in alike else values for key, values in found.items()}


def read_ahead(reads: Sequence[Read], names: Sequence[str], parts: Sequence[Part | None]) -> None:
    """Have the disk bring in samples that are not in memory; stops where four in a row are, as all are then most times."""
    there = 0
    for reader, row, k in reads:
        cached = [reader.prefetch(name, row, window_of(reader, name, parts[k])) for name in names]
        there = there + 1 if all(cached) else 0
        if there == ENOUGH:
            return


def fill(
    block: Tensor,
    reads: Sequence[Read],
    name: str,
    parts: Sequence[Part | None],
    checksums: NDArray[np.uint64] | None,
) -> None:
    """Read one variant of every sample to its place in the block."""
    half = block.numpy() if block.dtype == torch.float16 else None
    scratch = np.empty(block.shape[1:], np.float16) if half is None else None
    for reader, row, k in reads:
        # 0 stands for a sum that the manifest does not have, as of a residual that is worked out from its parts.
        expected = checksums.item(k) or None if checksums is not None else None
        window = window_of(reader, name, parts[k])
        if half is not None:
            reader.read_into(half[k], name, row, expected, window)
        elif scratch is not None:
            reader.read_into(scratch, name, row, expected, window)
            block[k].copy_(torch.from_numpy(scratch))


def window_of(reader: ShardReader, name: str, part: Part | None) -> Window | None:
    """Return the rows and columns of a variant that a part of the image covers; prefix tokens have no place."""
    return None if part is None or name == PREFIX else part.on(reader.shape(name))


def empty_block(
    reader: ShardReader, name: str, part: Part | None, count: int, dtype: torch.dtype, make: Allocate
) -> Tensor:
    """Return uninitialised memory for ``count`` samples as they lie in the shard: (N, h, w, C), or (N, T, C)."""
    shape, window = reader.shape(name), window_of(reader, name, part)
    if window is not None:
        shape = (*(w.stop - w.start for w in window), *shape[2:])
    return make((count, *shape), dtype)
