"""Batches: one block of memory a variant, filled in the order of the disk, handed on without another copy."""

from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map

from .aligned import Stored
from .crops import Part
from .parcels import Batch, take
from .places import as_remote
from .reading import PREFIX, ShardReader, Window

__all__ = ["Allocate", "Sample", "Samples", "allocate", "collate", "read_blocks", "reshared"]

Allocate = Callable[[tuple[int, ...], torch.dtype], Tensor]
"""Makes an uninitialised tensor of a shape and dtype."""

Read = tuple[ShardReader, int, int]
"""A sample to read: its shard, its row there, its place in the batch."""

ENOUGH = 4
RAGGED = frozenset({"image_id", "objects"})
"""Keys that collate to a list."""


class Sample(dict[str, Any]):
    """One item: a dict by whose type ``DataLoader`` knows how to collate."""

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return dict, (dict(self),)

    def copy(self) -> dict[str, Any]:
        """Return a plain dict."""
        return dict(self)

    __copy__ = copy


class Samples(Sequence[dict[str, Any]]):
    """The items of a batch, which share a block of memory a variant (N, …); each is made when it is looked at."""

    def __init__(self, ids: list[str], blocks: dict[str, Tensor], extras: list[dict[str, Any]]) -> None:
        self.ids, self.blocks, self.extras = ids, blocks, extras
        self.made: dict[int, tuple[Sample, dict[str, Any]]] = {}

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        if row not in self.made:
            values = {"image_id": self.ids[row]} | {key: whole[row] for key, whole in self.blocks.items()}
            values |= self.extras[row] if self.extras else {}
            self.made[row] = Sample(values), values
        return self.made[row][0]

    def is_as_made(self) -> bool:
        """Whether no caller has put another value into an item (one changed in place is changed in the block as well)."""
        return all(
            len(sample) == len(values) and all(sample.get(key) is value for key, value in values.items())
            for sample, values in self.made.values()
        )

    def batch(self, make: Allocate) -> "Batch":
        """Return the whole as a batch: the blocks as they are, extras stacked."""
        batch = Batch(image_id=self.ids, **self.blocks)
        return Batch(batch | stack_values(self.extras, make)) if self.extras else batch


def plain(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return an uninitialised tensor; numpy asks the kernel for large pages where an array is large, torch does not."""
    if dtype == torch.float16:
        return torch.from_numpy(np.empty(shape, np.float16))
    return torch.empty(shape, dtype=dtype)


def allocate(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return an uninitialised tensor: in a DataLoader's worker in shared memory, where it is sent without a copy."""
    return plain(shape, dtype) if get_worker_info() is None else take(shape, dtype)


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
            block = empty_block(reads[0][0], name, parts[0], len(places), dtype, make)
            fill(block, reads, name, parts, version.checksums[places, number] if verify and number >= 0 else None)
            blocks[key] = block if block.ndim == 3 else block.permute(0, 3, 1, 2)
    return blocks


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


def collate(samples: Sequence[dict[str, Any]], **_: Any) -> dict[str, Any]:
    """Turn samples into a batch: tensors (N, …), ``label`` (N,) int64, ``image_id`` and ``objects`` a list.

    Samples that were read together are one block already, which is handed on as it is. ``DataLoader`` does this by itself
    with the samples of a FeatureDataset.
    """
    if isinstance(samples, Samples) and samples.is_as_made():
        return samples.batch(allocate)
    return Batch(stack_values(samples, allocate))


def stack_values(samples: Sequence[dict[str, Any]], make: Allocate) -> dict[str, Any]:
    """Return the values of each key as one: tensors stacked, numbers a tensor, anything else as torch collates it."""
    batch: dict[str, Any] = {}
    for key, first in samples[0].items():
        values = [sample[key] for sample in samples]
        if key in RAGGED:
            batch[key] = values
        else:
            batch[key] = stacked(values, make) if isinstance(first, Tensor) else default_collate(values)
    return batch


def stacked(tensors: Sequence[Tensor], make: Allocate) -> Tensor:
    """Return (N, …) in memory that a worker can send; (C, h, w) that lie channels-last stay so."""
    first = tensors[0]
    if first.ndim == 3 and first.stride(0) == 1 and not first.is_contiguous():
        return stacked([tensor.permute(1, 2, 0) for tensor in tensors], make).permute(0, 3, 1, 2)
    return torch.stack(list(tensors), out=make((len(tensors), *first.shape), first.dtype))


# The way that torch documents: without it DataLoader would stack, and with that copy, what is one block already.
default_collate_fn_map.setdefault(Sample, collate)
