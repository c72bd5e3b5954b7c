"""Decomposers for worker processes: importable in a spawned child, and misbehaving on purpose."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fakes import FakeDecomposer, Maps
from numpy.typing import NDArray

from featstore.build import build_version
from featstore.engines import Engine, LocalEngine
from featstore.plan import Request
from featstore.worker import Worker


class Saboteur(FakeDecomposer):
    """Does something once: at image ``key``, and where ``flag`` is given only if that file is not there yet."""

    def __init__(self, deed: str, key: str = "", flag: Path | None = None, **options: Any) -> None:
        super().__init__(batch_size=1, **options)
        self.deed, self.key, self.flag = deed, key, flag

    def decompose(self, prepared: Sequence[tuple[NDArray[np.uint8], str]]) -> list[Maps]:
        if any(key == self.key for _, key in prepared) and not (self.flag and self.flag.exists()):
            if self.flag:
                self.flag.touch()
            self.act()
        return super().decompose(prepared)

    def act(self) -> None:
        if self.deed == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.deed == "exit":
            os._exit(7)
        if self.deed == "odd":
            raise OddError("left", "right")
        raise RuntimeError("out of memory on the device")


class Hanging(Saboteur):
    """Hangs once, at image ``key``."""

    def __init__(self, key: str, flag: Path) -> None:
        super().__init__("hang", key, flag)

    def act(self) -> None:
        time.sleep(600)


class OddError(Exception):
    """An error that pickle cannot bring back: its constructor wants two arguments and hands on one."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class Noted(FakeDecomposer):
    """Writes its process number into a folder, so that a test sees who worked."""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(**options)
        (folder / str(os.getpid())).touch()


class Stalling(Noted):
    """Hangs at its first images on one node of a Ray cluster; others wait until it does and ``count`` of them are there."""

    def __init__(self, folder: Path, flag: Path, node: str, count: int) -> None:
        super().__init__(folder)
        self.folder, self.flag, self.node, self.count = folder, flag, node, count

    def decompose(self, prepared: Sequence[tuple[NDArray[np.uint8], str]]) -> list[Maps]:
        import ray

        if ray.get_runtime_context().get_node_id() == self.node:
            self.flag.touch()
            time.sleep(600)
        while not self.flag.exists() or len(list(self.folder.iterdir())) < self.count:
            time.sleep(0.05)
        return super().decompose(prepared)


def no_decomposer() -> FakeDecomposer:
    """Fail as a model does that cannot be loaded."""
    raise FileNotFoundError(2, "No such file or directory", "weights.pth")


def noted(folder: Path, pause: float) -> Noted:
    """Make a slow decomposer whose process is known."""
    return Noted(folder, pause=pause)


if __name__ == "__main__":
    from functools import partial

    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell has its background jobs ignore Ctrl-C, and theirs
    root, folder = Path(sys.argv[1]), Path(sys.argv[2])
    worker = Worker("cpu", partial(noted, folder, 200.0))  # longer than any test waits for its end
    engine: Engine = LocalEngine([worker] * 2)
    if sys.argv[3:] == ["slurm"]:
        from featstore.engines import slurm

        slurm.STALE, slurm.LOOK, slurm.BEAT = 6.0, 0.5, 1.0
        worker = Worker("cpu", partial(noted, folder, 60.0))
        engine = slurm.SlurmEngine(worker, root / ".slurm", "local", jobs=2, parameters={"timeout_min": 5})
    try:
        build_version(root, Request("pets", "fake", shard_size=2), FakeDecomposer(), engine=engine)
    except KeyboardInterrupt:
        sys.exit(130)
