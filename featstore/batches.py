"""Batches: one block of memory a variant, filled in the order of the disk, handed on without another copy."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map

from .aligned import Stored
from .crops import Part
from .parcels import Batch, take
from .reading import PREFIX, ShardReader, Window

__all__ = ["Allocate", "Sample", "allocate", "collate", "read_blocks", "reshared"]

Allocate = Callable[[tuple[int, ...], torch.dtype], Tensor]
"""Makes an uninitialised tensor of a shape and dtype."""

RAGGED = frozenset({"image_id", "objects"})
"""Keys that collate to a list."""


class Block:
    """The features of a batch: a tensor (N, …) a key. Its samples are views of it."""

    def __init__(self, tensors: dict[str, Tensor], size: int) -> None:
        self.tensors, self.size = tensors, size


class Sample(dict[str, Any]):
    """One item: a dict that knows of which block it is which row, so that collating can hand on the block."""

    __slots__ = ("block", "row")

    def __init__(self, values: dict[str, Any], block: Block | None = None, row: int = 0) -> None:
        super().__init__(values)
        self.block, self.row = block, row

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return dict, (dict(self),)

    def copy(self) -> dict[str, Any]:
        """Return a plain dict."""
        return dict(self)

    __copy__ = copy


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
        order = np.lexsort((rows, shards)).tolist()
        columns = [column.name for column in version.columns] + [PREFIX] * prefix
        version.pool.fetch(columns, zip(shards.tolist(), rows.tolist(), strict=True))
        reads = [(version.pool[shards.item(k)], rows.item(k), k) for k in order]
        names = [(column.key, column.name, column.number) for column in version.columns]
        names += [(version.prefix + "prefix", PREFIX, -1)] if prefix else []
        for reader, row, k in reads:
            for _, name, _ in names:
                reader.prefetch(name, row, window_of(reader, name, parts[k]))
        filled = {key: empty_block(reads[0][0], name, parts[0], len(places), dtype, make) for key, name, _ in names}
        scratch = {key: half_of(block) for key, block in filled.items()}
        for reader, row, k in reads:
            for key, name, number in names:
                # 0 stands for a sum that the manifest does not have, as of a residual that is worked out from its parts.
                expected = version.checksums.item(places[k], number) or None if verify and number >= 0 else None
                window = window_of(reader, name, parts[k])
                half = scratch[key]
                if dtype == torch.float16:
                    reader.read_into(half[k], name, row, expected, window)
                else:
                    reader.read_into(half[0], name, row, expected, window)
                    filled[key][k].copy_(torch.from_numpy(half[0]))
        blocks |= {key: block if block.ndim == 3 else block.permute(0, 3, 1, 2) for key, block in filled.items()}
    return blocks


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


def half_of(block: Tensor) -> NDArray[np.float16]:
    """Return the block's own memory where it is float16, else that of one sample to convert from."""
    return block.numpy() if block.dtype == torch.float16 else np.empty((1, *block.shape[1:]), np.float16)


def collate(samples: Sequence[dict[str, Any]], **_: Any) -> dict[str, Any]:
    """Turn samples into a batch: tensors (N, …), ``label`` (N,) int64, ``image_id`` and ``objects`` a list.

    Samples that were read together are one block already, which is handed on as it is. ``DataLoader`` does this by itself
    with the samples of a FeatureDataset.
    """
    batch = Batch()
    for key in samples[0]:
        whole = block_of(samples, key)
        if whole is not None:
            batch[key] = whole
            continue
        values = [sample[key] for sample in samples]
        if key in RAGGED:
            batch[key] = values
        else:
            batch[key] = stacked(values) if isinstance(values[0], Tensor) else default_collate(values)
    return batch


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Return (N, …) in memory that a worker can send; (C, h, w) that lie channels-last stay so."""
    first = tensors[0]
    if first.ndim == 3 and first.stride(0) == 1 and not first.is_contiguous():
        return stacked([tensor.permute(1, 2, 0) for tensor in tensors]).permute(0, 3, 1, 2)
    return torch.stack(list(tensors), out=allocate((len(tensors), *first.shape), first.dtype))


def block_of(samples: Sequence[dict[str, Any]], key: str) -> Tensor | None:
    """Return the block whose rows, all and in order, the samples' values are; None where a caller has changed one."""
    block = samples[0].block if isinstance(samples[0], Sample) else None
    if block is None or block.size != len(samples) or key not in block.tensors:
        return None
    whole = block.tensors[key]
    start, step = whole.data_ptr(), whole.stride(0) * whole.element_size()
    for row, sample in enumerate(samples):
        value = sample[key]
        if not isinstance(value, Tensor) or value.dtype != whole.dtype or value.data_ptr() != start + row * step:
            return None
        if value.shape != whole.shape[1:] or value.stride() != whole.stride()[1:]:
            return None
    return whole


# The way that torch documents: without it DataLoader would stack, and with that copy, what is one block already.
default_collate_fn_map.setdefault(Sample, collate)
