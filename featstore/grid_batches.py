"""Batches of one grid each, for a DataLoader over features whose images keep their shapes."""

from collections.abc import Iterator
from typing import Any

from .dataset import FeatureDataset
from .order import Order

__all__ = ["GridBatchSampler"]


class GridBatchSampler:
    """Lists of indices whose maps are of one shape: ``DataLoader(data, batch_sampler=GridBatchSampler(data, 16))``.

    ``order`` are the options of ``featstore.order.Order``: ``shuffle``, ``seed``, ``drop_last``, ``rank``, ``world_size``,
    ``uneven``. Call ``set_epoch`` before each epoch for another order. FeatureStream and ``featstore.loader`` do this by
    themselves.
    """

    def __init__(self, data: FeatureDataset, batch_size: int, **order: Any) -> None:
        """Raise InputError for values that make no sense."""
        self.data, self.order, self.epoch = data, Order(batch_size=batch_size, **order), 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self.epoch = epoch
        self.data.set_epoch(epoch)

    def __len__(self) -> int:
        return self.order.grouped_length(self.data.grid_groups)

    def __iter__(self) -> Iterator[list[int]]:
        batches = self.order.grouped(self.data.stored[0].shard, self.data.grid_groups, self.epoch)
        return iter([batch.tolist() for batch in batches])
