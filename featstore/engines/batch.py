"""What a job of Slurm does: load the model once, make one shard after another, leave a note of each for the driver."""

import contextlib
import faulthandler
import os
import pickle
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featstore.errors import WorkerError
from featstore.run import ShardSpec, run_shard
from featstore.sealing import write_bytes
from featstore.worker import Made, Raised, portable

from .errand import Errand, here

__all__ = ["LOOK", "STALE", "Batch", "Mailbox", "beat"]

STALE, LOOK = 300.0, 5.0


@dataclass(frozen=True)
class Mailbox:
    """The folder of one build, on the file system that all share, in which jobs leave notes and the driver a sign of life.

    A driver whose sign of life is older than ``stale`` [s] is taken for dead; jobs look for it every ``look`` seconds.
    """

    folder: Path
    stale: float = STALE
    look: float = LOOK

    @property
    def alive(self) -> Path:
        """Return the file with the driver's sign of life: the time [s]."""
        return self.folder / "driver-alive"

    def leave(self, made: Made) -> None:
        """Note a sealed shard."""
        write_bytes(self.note(made.spec), pickle.dumps(made))

    def note(self, spec: ShardSpec) -> Path:
        """Return where the note of a shard lies."""
        return self.folder / f"{spec.path.stem}.made"

    def collect(self, spec: ShardSpec) -> Made | None:
        """Return what a job noted of a shard, None where it has not yet."""
        try:
            made: Made = pickle.loads(self.note(spec).read_bytes())
        except FileNotFoundError:
            return None
        return made

    def enter(self) -> None:
        """Note that this process works on the build."""
        process = here()
        write_bytes(self.folder / f"{process.pid}@{process.host}.worker", b"")

    def workers(self) -> set[tuple[str, int]]:
        """Return (host, pid) of every process that ever worked on the build."""
        names = [path.stem.partition("@") for path in self.folder.glob("*.worker")]
        return {(host, int(pid)) for pid, _, host in names}


def beat(mailbox: Mailbox) -> None:
    """Give the driver's sign of life."""
    write_bytes(mailbox.alive, str(time.time()).encode())


@dataclass(frozen=True)
class Batch:
    """One job's shards. Called in the job, it returns None, or an error and the shard that it was raised in."""

    errand: Errand
    specs: tuple[ShardSpec, ...]
    mailbox: Mailbox
    timeout: float | None
    in_process: bool = False

    def __call__(self) -> tuple[Raised, ShardSpec | None] | None:
        """Make what is not made yet; the job may have been begun before."""
        spec: ShardSpec | None = None
        try:
            if not self.in_process:
                self.outlive_nobody()
            self.mailbox.enter()
            with limited(self.timeout):
                decomposer = self.errand.begin()
            for spec in self.specs:
                if not self.mailbox.note(spec).exists():
                    with limited(self.timeout):
                        self.mailbox.leave(Made(spec, *run_shard(spec, decomposer)))
        except Exception as error:
            return Raised(portable(error)), spec
        return None

    def checkpoint(self, *_: Any) -> Any:
        """Tell submitit to queue the same batch again when its time is up: it goes on after the last sealed shard."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def outlive_nobody(self) -> None:
        """Raise WorkerError where the driver is gone, and end this process as soon as that happens."""
        said = self.sign()
        if said is None or time.time() - float(said) > self.mailbox.stale:
            raise WorkerError(f"{here()} began after the build that wanted it had ended")
        threading.Thread(target=self.die_with_driver, args=(said,), daemon=True).start()

    def die_with_driver(self, said: str) -> None:
        """Watch the sign of life by this machine's own clock; the file is removed when the build ends."""
        changed = time.monotonic()
        while time.monotonic() - changed < self.mailbox.stale:
            time.sleep(self.mailbox.look)
            now = self.sign()
            if now is None:
                break
            if now != said:
                said, changed = now, time.monotonic()
        print("the build that wanted this job has ended: so does the job", file=sys.stderr, flush=True)
        os._exit(1)

    def sign(self) -> str | None:
        """Return the driver's sign of life, None where it has taken it away."""
        try:
            return self.mailbox.alive.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None


@contextlib.contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """End this process, with its traceback in the log, where the block takes longer: even where nothing of Python runs."""
    if not seconds:
        yield
        return
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
