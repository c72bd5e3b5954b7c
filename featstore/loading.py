"""Batches for training, read ahead by threads and copied to the device while the model computes."""

import math
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .dataset import FeatureDataset
from .errors import InputError
from .samples import Allocate
from .stream import FeatureStream

__all__ = ["Loader", "loader"]

Batch = dict[str, Any]


def loader(
    data: FeatureDataset,
    batch_size: int = 16,
    *,
    shuffle: bool | str = False,
    workers: int = 2,
    device: str | torch.device = "cpu",
    prefetch: int = 2,
    **order: Any,
) -> "Loader":
    """Return an iterable over batches on ``device``, with the defaults that we would take.

    ``workers`` threads read ``prefetch`` batches each ahead (0 reads when asked): copying out of a memory map and decoding
    photographs leave the interpreter free, and no batch is sent between processes. For a CUDA device they read into pinned
    memory, from which batches are copied while the model computes. ``order`` are the options of FeatureStream: ``seed``,
    ``open_shards``, ``drop_last``, ``rank``, ``world_size``, ``uneven``. Raises InputError for values that make no sense.
    """
    return Loader(FeatureStream(data, batch_size, shuffle=shuffle, **order), workers, torch.device(device), prefetch)


class Loader:
    """Batches of a stream, as dicts; ``len`` batches an epoch.

    Call ``set_epoch`` before each epoch for another order. ``state_dict`` between two batches, and ``load_state_dict`` into a
    loader opened alike, have the rest of the epoch come as it would have.
    """

    def __init__(self, stream: FeatureStream, workers: int, device: torch.device, prefetch: int = 2) -> None:
        if workers < 0 or prefetch < 1:
            raise InputError("workers is 0 or more, prefetch 1 or more")
        if device.type == "cuda" and not torch.cuda.is_available():
            raise InputError(f"device {device}: PyTorch finds no CUDA device here; take device='cpu'")
        self.stream, self.workers, self.device, self.ahead = stream, workers, device, prefetch
        self.pinned = device.type == "cuda"
        self.recycled = Recycled(limit=(workers * (prefetch + 1) + 2) * len(stream.data.variants))

    def __len__(self) -> int:
        return len(self.stream)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self.stream.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return how far the epoch has been handed out."""
        return self.stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Have the next iteration go on there; raises InputError for a state of another order."""
        self.stream.load_state_dict(state)

    def __iter__(self) -> Iterator[Batch]:
        """Give the batches of an epoch in order; an error of reading is raised at its batch."""
        batches = self.moved() if self.device.type != "cpu" else self.read()
        for batch in batches:
            self.stream.taken += 1
            yield batch

    def read(self) -> Iterator[Batch]:
        """Give batches in memory of the host."""
        places = self.stream.places()
        make = pinned if self.pinned else self.recycled.take
        if not self.workers:
            for own in places:
                yield self.stream.data.batch(own.tolist(), make)
            return
        with ThreadPoolExecutor(self.workers, "featstore-reader") as pool:
            waiting: deque[Future[Batch]] = deque()
            try:
                for own in places:
                    waiting.append(pool.submit(self.one, own, make))
                    if len(waiting) > self.workers * self.ahead:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for job in waiting:
                    job.cancel()

    def one(self, places: NDArray[Any], make: Allocate) -> Batch:
        """Read one batch, in a thread."""
        return self.stream.data.batch(places.tolist(), make)

    def moved(self) -> Iterator[Batch]:
        """Give batches on the device: on CUDA the next is being copied while the one before it is used."""
        if self.device.type != "cuda":
            for batch in self.read():
                yield mapped(batch, lambda tensor: tensor.to(self.device))
            return
        copying = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        waiting: deque[tuple[Batch, torch.cuda.Event]] = deque()
        for batch in self.read():
            with torch.cuda.stream(copying):
                # The pinned memory is not given out again before the copy is done: torch's allocator sees to that.
                waiting.append(
                    (mapped(batch, lambda tensor: tensor.to(self.device, non_blocking=True)), copying.record_event())
                )
            if len(waiting) > 1:
                yield self.arrived(*waiting.popleft())
        while waiting:
            yield self.arrived(*waiting.popleft())

    def arrived(self, batch: Batch, copied: "torch.cuda.Event") -> Batch:
        """Have what the caller computes next wait for the copy, and the memory stay as long as that needs it."""
        current = torch.cuda.current_stream(self.device)
        current.wait_event(copied)

        def used(tensor: Tensor) -> Tensor:
            tensor.record_stream(current)
            return tensor

        arrived: Batch = mapped(batch, used)
        return arrived


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change every tensor of a batch, in lists and dicts as well."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: mapped(each, change) for key, each in value.items()}
    return [mapped(each, change) for each in value] if isinstance(value, list) else value


def pinned(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return an uninitialised tensor in page-locked memory, which torch keeps for the next batch."""
    return torch.empty(shape, dtype=dtype, pin_memory=True)


class Recycled:
    """Gives memory that earlier batches lay in, once nothing refers to them: new pages cost the kernel time to clear.

    A tensor made by ``torch.from_numpy`` refers to the array until its storage, with all views, is gone. So an array with no
    reference besides the pool's own is free. ``limit`` arrays of a size are kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.arrays: dict[int, list[NDArray[np.uint8]]] = {}
        self.lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"limit": self.limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return an uninitialised tensor."""
        size = math.prod(shape) * dtype.itemsize
        with self.lock:
            arrays = self.arrays.setdefault(size, [])
            for place in range(len(arrays)):
                if sys.getrefcount(arrays[place]) == FREE:
                    return torch.from_numpy(arrays[place]).view(dtype).view(shape)
            made = np.empty(size, np.uint8)
            if len(arrays) < self.limit:
                arrays.append(made)
            return torch.from_numpy(made).view(dtype).view(shape)


PROBE = [np.empty(0, np.uint8)]
FREE = sys.getrefcount(PROBE[0])
"""References that Python counts on an array which only a list holds."""
