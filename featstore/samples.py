"""Samples that were read together, and batches of them: one block of memory a variant, handed on without another copy.

Knows no manifest: what is registered with torch lives as long as the interpreter, and so does all that its module imports, of
which DuckDB would complain at the exit.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map

from .parcels import Batch, take

__all__ = ["Allocate", "Sample", "Samples", "allocate", "collate"]

Allocate = Callable[[tuple[int, ...], torch.dtype], Tensor]
"""Makes an uninitialised tensor of a shape and dtype."""

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
    """The items of a batch, which share a block of memory a variant (N, …); each is made when it is looked at.

    Maps on several grids are a list in the place of a block.
    """

    def __init__(
        self, ids: list[str], blocks: Mapping[str, Tensor | list[Tensor]], extras: list[dict[str, Any]]
    ) -> None:
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


def collate(samples: Sequence[dict[str, Any]], **_: Any) -> dict[str, Any]:
    """Turn samples into a batch: tensors (N, …), ``label`` (N,) int64, ``image_id`` and ``objects`` a list.

    What differs in shape within a batch, as maps do on several grids, is a list of tensors.

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
            batch[key] = stacked_or_list(values, make) if isinstance(first, Tensor) else default_collate(values)
    return batch


def stacked_or_list(tensors: Sequence[Tensor], make: Allocate) -> Tensor | list[Tensor]:
    """Return (N, …), a list where shapes differ."""
    alike = all(tensor.shape == tensors[0].shape for tensor in tensors)
    return stacked(tensors, make) if alike else list(tensors)


def stacked(tensors: Sequence[Tensor], make: Allocate) -> Tensor:
    """Return (N, …) in memory that a worker can send; (C, h, w) that lie channels-last stay so."""
    first = tensors[0]
    if first.ndim == 3 and first.stride(0) == 1 and not first.is_contiguous():
        return stacked([tensor.permute(1, 2, 0) for tensor in tensors], make).permute(0, 3, 1, 2)
    return torch.stack(list(tensors), out=make((len(tensors), *first.shape), first.dtype))


# The way that torch documents: without it DataLoader would stack, and with that copy, what is one block already.
default_collate_fn_map.setdefault(Sample, collate)
