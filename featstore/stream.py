"""Stored features as a stream: an iterable PyTorch data set that deals samples out to ranks and workers."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from .batches import reshared
from .dataset import FeatureDataset
from .errors import InputError
from .order import Order

__all__ = ["FeatureStream", "ranks"]

AT_ONCE = 16  # samples read together where single ones are asked for


def ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return rank and world size as given, else those of torch.distributed, else 0 of 1."""
    if rank is not None and world_size is not None:
        return rank, world_size
    if rank is not None or world_size is not None:
        raise InputError("give rank and world_size, or neither of them")
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


class FeatureStream(IterableDataset[dict[str, Any]]):
    """The samples of a FeatureDataset in an order of its own, every one once an epoch over all ranks and workers.

    With ``batch_size`` it gives whole batches, to be used as ``DataLoader(stream, batch_size=None, num_workers=4)``. Workers
    take the rank's batches in turns: the same batches come in the same order whatever their number. Without, it gives single
    samples, which the workers take in turns as well, and each worker makes its own batches of them. Where images keep their
    shapes, every batch is of one grid. ``len`` is that of a rank:
    batches, or samples.

    Orders, ranks and what happens where samples do not share out evenly: ``featstore.order.Order``. Call ``set_epoch`` before
    each epoch for another order (and other random crops); workers that run already hear of it. ``state_dict`` tells where the
    stream is, where it is read in the process that asks: with workers use ``featstore.loader``, whose state counts what has
    been handed out.
    """

    def __init__(
        self,
        data: FeatureDataset,
        batch_size: int | None = None,
        *,
        shuffle: bool | str = "shards",
        seed: int = 0,
        open_shards: int = 16,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        uneven: str = "keep",
    ) -> None:
        """Choose an order; ``rank`` and ``world_size`` None take those of torch.distributed where it is initialised.

        Raises InputError for values that make no sense.
        """
        own, world = ranks(rank, world_size)
        self.data, self.batch_size = data, batch_size
        size = 1 if batch_size is None else batch_size
        self.order = Order(shuffle, seed, open_shards, size, drop_last, own, world, uneven)
        self.epoch = reshared(torch.tensor(0))
        self.start = reshared(torch.tensor(0))
        self.taken = 0

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.epoch, self.start = reshared(self.epoch), reshared(self.start)

    def __len__(self) -> int:
        if self.grouped:
            return self.order.grouped_length(self.data.grid_groups)
        return self.order.batches(len(self.data))

    @property
    def grouped(self) -> bool:
        """Whether batches are of one grid each, since maps are on several."""
        return self.batch_size is not None and self.data.ragged and self.data.crop is None

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next, from its beginning; the epoch of a state that was loaded goes on where that was."""
        if epoch != int(self.epoch):
            self.start.fill_(0)
            self.taken = 0
        self.epoch.fill_(epoch)
        self.data.set_epoch(epoch)

    def places(self, first: int = 0, step: int = 1) -> Iterator[NDArray[np.intp]]:
        """Give the places (N,) of each batch (or sample) that is left of the epoch, of every ``step``-th from ``first`` on."""
        self.taken = start = int(self.start)
        if get_worker_info() is None:
            self.start.fill_(0)  # the iteration after this one is a whole epoch again
        if self.grouped:
            batches = self.order.grouped(self.data.stored[0].shard, self.data.grid_groups, int(self.epoch))
            yield from batches[start + first :: step]
            return
        size, share = self.order.batch_size, self.order.share(self.data.stored[0].shard, int(self.epoch))
        for batch in range(start + first, len(self), step):
            yield share[batch * size : (batch + 1) * size]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Give this worker's batches, or samples, of the epoch; after ``load_state_dict`` those that are left."""
        worker = get_worker_info()
        places = self.places(worker.id, worker.num_workers) if worker else self.places()
        if self.batch_size is not None:
            for own in places:
                self.taken += 1
                yield self.data.batch(own.tolist())
            return
        while chunk := list(itertools.islice(places, AT_ONCE)):
            for sample in self.data.__getitems__(np.concatenate(chunk).tolist()):
                self.taken += 1
                yield sample

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and how many of its batches (or samples) have been given, with what decides their order."""
        return {"epoch": int(self.epoch), "taken": self.taken, **self.identity()}

    def identity(self) -> dict[str, Any]:
        """Return what a state must agree with."""
        order = self.order
        names = ("shuffle", "seed", "open_shards", "batch_size", "drop_last", "rank", "world_size", "uneven")
        return {"samples": len(self.data)} | {name: getattr(order, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Have the next iteration go on where ``state`` was taken; raises InputError for a state of another order."""
        for name, value in self.identity().items():
            if state.get(name) != value:
                raise InputError(
                    f"the state is of {name}={state.get(name)!r}, this stream has {value!r}: open it alike"
                )
        self.set_epoch(int(state["epoch"]))
        self.start.fill_(int(state["taken"]))
        self.taken = int(state["taken"])
