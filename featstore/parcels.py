"""Batches from a DataLoader's worker to its parent through memory that both keep: nothing is copied, mapped or cleared."""

import math
import mmap
import os
import secrets
import weakref
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import StoreError

__all__ = ["Batch", "take"]

HEADER = mmap.PAGESIZE
"""Bytes before the data of a slot; the first is 1 from the worker's ``take`` until the parent has no use for it."""

LIMIT = 8
"""Slots a worker keeps of one size. With two batches read ahead, three or four are in use."""

FEW = 1 << 14
"""A tensor of fewer bytes goes through the queue itself, where a shared one costs a descriptor and two system calls."""


class Slot:
    """Memory of a worker that its parent opens once and keeps mapped.

    torch's way makes, clears, maps and unmaps fresh pages for every batch, which costs several times what reading does.
    """

    def __init__(self, size: int) -> None:
        self.descriptor = os.memfd_create("featstore")  # has no name to be left behind, and ends with the last process
        self.size = HEADER + size
        os.ftruncate(self.descriptor, self.size)
        self.bytes = np.frombuffer(mmap.mmap(self.descriptor, self.size), np.uint8)


class Slots:
    """Slots of one process. Only the parent frees a slot: what it never got, or got in another way, stays taken."""

    def __init__(self) -> None:
        self.process, self.token = os.getpid(), secrets.token_hex(8)
        self.slots: dict[int, Slot] = {}
        self.sizes: dict[int, list[Slot]] = {}

    def take(self, size: int) -> Tensor | None:
        """Return ``size`` free bytes; None where too many are in use."""
        known = self.sizes.setdefault(size, [])
        slot = next((slot for slot in known if not slot.bytes[0]), None)
        if slot is None:
            if len(known) == LIMIT:
                return None
            slot = Slot(size)
            known.append(slot)
            self.slots[slot.bytes.ctypes.data] = slot
        slot.bytes[0] = 1
        return torch.from_numpy(slot.bytes)[HEADER:]


OWN: list[Slots] = []
"""This process's slots, once it has any. A process that was forked off finds those of its parent here."""


def own_slots() -> Slots:
    """Return this process's slots."""
    if not OWN or OWN[0].process != os.getpid():
        OWN[:] = [Slots()]
    return OWN[0]


def take(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return an uninitialised tensor for a batch that a worker is about to send."""
    size = math.prod(shape) * dtype.itemsize
    found = own_slots().take(size) if size and hasattr(os, "memfd_create") else None
    if found is not None:
        return found.view(dtype).view(shape)
    kind, empty = torch.UntypedStorage, torch.empty(0, dtype=dtype)
    shared: Tensor = getattr(empty, "set_")(getattr(kind, "_new_shared")(size), 0, shape)  # noqa: B009
    return shared


class Batch(dict[str, Any]):
    """A batch: a dict that a worker sends with its tensors where they are. It arrives as a plain dict."""


class Place(NamedTuple):
    """Where a tensor lies: the slot, and the tensor's layout in it."""

    process: int
    token: str
    descriptor: int
    size: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


class Small(NamedTuple):
    """A tensor that is quicker sent than put into shared memory."""

    values: NDArray[Any]


def packed(value: Any) -> Any:
    """Return what is sent of a value: a tensor's place in a slot, or its numbers where they are few."""
    if isinstance(value, list):
        return [packed(each) for each in value]
    if isinstance(value, dict):
        return {key: packed(each) for key, each in value.items()}
    if not isinstance(value, Tensor) or value.device.type != "cpu":
        return value
    slots = own_slots()
    slot = slots.slots.get(value.untyped_storage().data_ptr())
    if slot is not None:
        layout = value.dtype, tuple(value.shape), value.stride(), int(value.storage_offset())
        return Place(slots.process, slots.token, slot.descriptor, slot.size, *layout)
    return Small(value.numpy()) if value.nbytes <= FEW and value.dtype != torch.bfloat16 else value


def unpacked(value: Any, tensors: dict[Any, Tensor]) -> Any:
    """Return what ``packed`` was given; ``tensors`` are the slots opened for this batch so far."""
    if isinstance(value, Place):
        slot = value[:4]
        if slot not in tensors:
            tensors[slot] = open_slot(*slot)
        return tensors[slot].view(value.dtype).as_strided(value.shape, value.stride, value.offset)
    if isinstance(value, Small):
        return torch.from_numpy(value.values)
    if isinstance(value, dict):
        return {key: unpacked(each, tensors) for key, each in value.items()}
    return [unpacked(each, tensors) for each in value] if isinstance(value, list) else value


def arrive(items: dict[str, Any]) -> dict[str, Any]:
    """Put a batch together again, in the parent."""
    tensors: dict[Any, Tensor] = {}
    return {key: unpacked(value, tensors) for key, value in items.items()}


MAPPED: dict[tuple[int, str, int], mmap.mmap] = {}
"""Slots of workers that this process has mapped."""


def open_slot(process: int, token: str, descriptor: int, size: int) -> Tensor:
    """Return a slot's bytes, header and all; it is free again when the last tensor on them is gone."""
    key = process, token, descriptor
    if key not in MAPPED:
        for old in [old for old in MAPPED if not is_alive(old[0])]:
            del MAPPED[old]
        try:
            with Path(f"/proc/{process}/fd/{descriptor}").open("r+b", buffering=0) as file:
                MAPPED[key] = mmap.mmap(file.fileno(), size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        except OSError as error:
            raise StoreError(
                f"cannot map the memory of worker {process} ({error.strerror}): it has ended, or this system keeps processes "
                "of one user apart; featstore.loader reads with threads"
            ) from error
    # The tensor's memory holds on to this array, and nothing else does: the array's end is that of all views on it.
    array = np.frombuffer(MAPPED[key], np.uint8)
    weakref.finalize(array, release, np.frombuffer(MAPPED[key], np.uint8, 1), os.getpid()).atexit = False
    return torch.from_numpy(array)


def release(flag: NDArray[np.uint8], owner: int) -> None:
    """Give a slot back to its worker; a copy of the array in a process that was forked off has no say."""
    if os.getpid() == owner:
        flag[0] = 0


def is_alive(process: int) -> bool:
    """Whether a process is there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def reduce_batch(batch: Batch) -> tuple[Any, ...]:
    """Tell the pickler of queues between processes, and no other, to send places."""
    return arrive, ({key: packed(value) for key, value in batch.items()},)


ForkingPickler.register(Batch, reduce_batch)
