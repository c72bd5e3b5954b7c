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

    def grouped(self, shards: NDArray[np.integer], groups: NDArray[np.integer], epoch: int) -> list[NDArray[np.intp]]:
        """Return this rank's batches of an epoch where a batch may hold samples of one of ``groups`` (N,) alone.

        Each group is cut into batches in the order of its samples, and the batches follow each other as their first samples do.
        ``drop_last`` leaves out every group's last batch where it is not full; ranks share, and ``uneven`` counts, batches.
        """
        order = self.everything(shards, epoch)
        found: list[tuple[int, NDArray[np.intp]]] = []
        for number in np.unique(groups):
            places = np.flatnonzero(groups[order] == number)
            starts = range(0, len(places) - (self.batch_size - 1 if self.drop_last else 0), self.batch_size)
            found += [(int(places[start]), order[places[start : start + self.batch_size]]) for start in starts]
        batches = [batch for _, batch in sorted(found, key=lambda one: one[0])]
        count, world = self.total(len(batches)), self.world_size
        start, end = (edge * count // world for edge in (self.rank, self.rank + 1))
        return [batches[number % len(batches)] for number in range(start, end)]

    def grouped_length(self, groups: NDArray[np.integer]) -> int:
        """Return how many batches ``grouped`` gives, of any epoch."""
        sizes = np.unique(groups, return_counts=True)[1]
        whole = sizes // self.batch_size if self.drop_last else -(-sizes // self.batch_size)
        return self.length(int(whole.sum()))

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
