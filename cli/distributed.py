"""The process group that ``torchrun`` makes, joined and left; alone, there is none."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from featstore.errors import WorkerError

__all__ = ["Member", "joined"]


@dataclass(frozen=True)
class Member:
    """Which of how many processes this is, and the device it computes on."""

    rank: int
    world: int
    device: str

    @property
    def leads(self) -> bool:
        """Whether it is the one that writes and prints."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait for the others; raises WorkerError where one of them has ended."""
        import torch.distributed as dist

        if self.world > 1:
            try:
                dist.barrier()
            except RuntimeError as error:
                raise WorkerError(
                    f"process {self.rank} stops, since another one did: see what that one says"
                ) from error


@contextmanager
def joined(device: str) -> Iterator[Member]:
    """Join the group that torchrun's environment tells of: NCCL with a GPU a process, else gloo."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Member(0, 1, device)
        return
    import torch
    import torch.distributed as dist

    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    place = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if on_gpu else "cpu"
    if on_gpu:
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Member(dist.get_rank(), world, place)
    finally:
        dist.destroy_process_group()
