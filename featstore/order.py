"""In which order an epoch goes through the samples, and which of them are whose."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

__all__ = ["Order"]

UNEVEN = ("keep", "pad", "drop")
SHUFFLES = (False, True, "shards")


@dataclass(frozen=True)
class Order:
    """A seeded order of samples, dealt out to ranks in whole batches.

    ``shuffle`` False goes by index; True is one random permutation; ``"shards"`` takes the shards in random order,
    ``open_shards`` of them at a time, and permutes the samples of those: what the page cache must hold at once is these
    shards, and a disk or network reads each of them once an epoch. No sample waits in a buffer: only numbers are shuffled.

    Each rank has a contiguous part of the order, so with ``"shards"`` mostly shards of its own. Where the samples do not share
    out evenly among ``world_size`` ranks, ``uneven`` decides: ``keep`` has some ranks take one sample more, so that each is
    read exactly once; ``pad`` repeats some of the first, ``drop`` leaves out some of the last, fewer than ``world_size``: so
    that all ranks have equally many. ``drop_last`` leaves out a rank's last batch where it is not full.
    """

    shuffle: bool | str = True
    seed: int = 0
    open_shards: int = 16
    batch_size: int = 1
    drop_last: bool = False
    rank: int = 0
    world_size: int = 1
    uneven: str = "keep"

    def __post_init__(self) -> None:
        if self.shuffle not in SHUFFLES:
            raise InputError(f'shuffle={self.shuffle!r}: choose from False, True and "shards"')
        if self.uneven not in UNEVEN:
            raise InputError(f"uneven={self.uneven!r}: choose from {', '.join(UNEVEN)}")
        if self.batch_size < 1 or self.open_shards < 1:
            raise InputError("batch_size and open_shards are 1 or more")
        if not 0 <= self.rank < self.world_size:
            raise InputError(f"rank {self.rank} is not one of {self.world_size}, counted from 0")

    def everything(self, shards: NDArray[np.integer], epoch: int) -> NDArray[np.intp]:
        """Return an order of all samples, whose shards are ``shards`` (N,)."""
        count = len(shards)
        if not self.shuffle:
            return np.arange(count)
        random = np.random.default_rng((self.seed, epoch))
        if self.shuffle is True:
            return random.permutation(count)
        present, number = np.unique(shards, return_inverse=True)
        group = random.permutation(len(present)) // self.open_shards
        return np.lexsort((random.permutation(count), group[number]))

    def share(self, shards: NDArray[np.integer], epoch: int) -> NDArray[np.intp]:
        """Return this rank's samples of an epoch, in order."""
        order, world = self.everything(shards, epoch), self.world_size
        count = self.total(len(order))
        start, end = (edge * count // world for edge in (self.rank, self.rank + 1))
        return np.resize(order, count)[start:end] if count else order[:0]

    def total(self, count: int) -> int:
        """Return how many samples all ranks read together, repeated ones counted."""
        if self.uneven == "pad":
            return -(-count // self.world_size) * self.world_size
        return count // self.world_size * self.world_size if self.uneven == "drop" else count

    def length(self, count: int) -> int:
        """Return how many samples of ``count`` this rank reads in an epoch."""
        total = self.total(count)
        return (self.rank + 1) * total // self.world_size - self.rank * total // self.world_size

    def batches(self, count: int) -> int:
        """Return how many batches this rank reads in an epoch."""
        own = self.length(count)
        return own // self.batch_size if self.drop_last else -(-own // self.batch_size)
