"""Engine `local`: here, or one process a worker on this machine, each with a decomposer of its own.

Every worker has a pipe of its own to the parent: nothing is shared, so that one killed in the middle of a word can neither
hold a lock nor garble what another says.
"""

import signal
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from featstore.compute import Decomposer
from featstore.errors import WorkerError
from featstore.run import Advance, ShardSpec, run_shard
from featstore.sealing import sweep
from featstore.worker import Advanced, Made, Raised, Ready, Worker, work

from .base import GO_ON, Say, overdue

if TYPE_CHECKING:
    from featstore.worker import Channel

__all__ = ["LocalEngine"]

GRACE = 10.0
TICK = 1.0


@dataclass(frozen=True)
class LocalEngine:
    """Makes shards on this machine: in this process, or, where there are two ``workers`` or more, in a process each.

    ``timeout`` is how long a worker's process may make one shard [s] before it counts as hung, which ends the build; with it
    a single worker has a process of its own, too.
    """

    workers: Sequence[Worker] = ()
    timeout: float | None = None

    def make_shards(
        self,
        specs: Sequence[ShardSpec],
        decomposer: Decomposer,
        advance: Advance = lambda count: None,
        say: Say = lambda line: None,
    ) -> Generator[Made, None, None]:
        """Make shards, in order where that is done here by ``decomposer``; see ``Engine``.

        Where a worker's process ends or its decomposer is of another recipe that ends the build: first what the other
        workers had sealed till then is yielded.
        """
        if len(self.workers) < (1 if self.timeout else 2) or not specs:
            for spec in specs:
                yield Made(spec, *run_shard(spec, decomposer, advance))
            return
        with closing(share_out(specs, self.workers, advance, self.timeout)) as shards:
            yield from shards


def share_out(
    specs: Sequence[ShardSpec], workers: Sequence[Worker], advance: Advance, timeout: float | None
) -> Generator[Made, None, None]:
    """Give each worker one shard after another, and stop all of them where one fails."""
    todo, trouble = deque(specs), None
    try:
        with crew(workers[: len(specs)], specs[0].header.recipe) as hands:
            busy: dict[Any, Hand] = {hand.channel: hand for hand in hands}
            while busy and trouble is None:
                for channel in wait(busy, TICK if timeout else None):
                    message = busy[channel].listen()
                    if isinstance(message, Ready | Made) and not busy[channel].give(todo):
                        del busy[channel]
                    if isinstance(message, Advanced):
                        advance(message.count)
                    elif isinstance(message, Made):
                        yield message
                    elif isinstance(message, Raised):
                        trouble = trouble or message.error
                hung = [hand for hand in busy.values() if timeout and hand.busy_for() > timeout]
                if hung:
                    trouble = trouble or WorkerError(f"{hung[0].name} {overdue(timeout)}; {GO_ON}")
            if trouble is not None:
                for hand in busy.values():
                    yield from hand.last_words()
    finally:
        # Every worker is dead: what it was writing is nobody's. The next build would sweep it as well.
        for folder in {spec.path.parent for spec in specs}:
            sweep(folder)
    if trouble is not None:
        raise trouble


@contextmanager
def crew(workers: Sequence[Worker], recipe: str) -> Iterator[list["Hand"]]:
    """Start a process a worker; all are gone when the block ends, whatever ends it."""
    hands: list[Hand] = []
    try:
        for number, worker in enumerate(workers, 1):
            hands.append(Hand(f"worker {number} of {len(workers)} ({worker.name})", worker, recipe))
        yield hands
    finally:
        for hand in hands:
            hand.stop()
        for hand in hands:
            hand.dismiss()


class Hand:
    """The parent's end of one worker."""

    def __init__(self, name: str, worker: Worker, recipe: str) -> None:
        context = get_context("spawn")  # a fork would copy a CUDA context, which is of no use to the child
        self.name, self.resting, self.since = name, False, time.monotonic()
        self.channel: Channel
        self.channel, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, worker.make, recipe), name=name, daemon=True)
        with interrupts_held(), theirs:
            self.process.start()

    def give(self, todo: deque[ShardSpec]) -> bool:
        """Hand over the next shard; where there is none, send the worker home and return False."""
        self.resting, self.since = not todo, time.monotonic()
        with suppress(OSError):  # it is gone: ``listen`` is where that is told
            self.channel.send(todo.popleft() if todo else None)
        return not self.resting

    def busy_for(self) -> float:
        """Return how long the worker is at its shard, or at loading its model [s]."""
        return time.monotonic() - self.since

    def listen(self) -> Ready | Advanced | Made | Raised:
        """Return what the worker says next; of one that is gone, what it died of."""
        try:
            message: Ready | Advanced | Made | Raised = self.channel.recv()
        except (EOFError, OSError):
            self.process.join(GRACE)
            return Raised(WorkerError(f"{self.name} {ended(self.process.exitcode)}; {GO_ON}"))
        return message

    def last_words(self) -> Iterator[Made]:
        """Stop the worker and yield the shards that it had told of, unheard as yet."""
        self.stop()
        while not isinstance(message := self.listen(), Raised):
            if isinstance(message, Made):
                yield message

    def stop(self) -> None:
        """End the process at once, except where it has been sent home and is on its way."""
        if not self.resting:
            self.process.kill()

    def dismiss(self) -> None:
        """See the process end."""
        self.process.join(GRACE)
        self.process.kill()
        self.process.join()
        self.channel.close()


def ended(code: int | None) -> str:
    """Say how a process ended that should not have."""
    if code is None or code >= 0:
        return "stopped talking" if code is None else f"ended with code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    hint = ", as Linux does where memory runs out" if -code == signal.SIGKILL else ""
    return f"was killed by {name}{hint}"


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back while a process starts, which inherits that: until it ignores it, it must not die of it."""
    resource_tracker.ensure_running()  # started together with the process, it would let Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
