"""Several shards at once: one process a worker, each with a decomposer of its own. Knows neither manifest nor model.

Every worker has a pipe of its own to the parent: nothing is shared, so that one killed in the middle of a word can neither
hold a lock nor garble what another says.
"""

import signal
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from .compute import Decomposer
from .errors import WorkerError
from .run import Advance, ShardSpec, run_shard
from .sealing import sweep
from .worker import Advanced, Made, Raised, Ready, Worker, work

if TYPE_CHECKING:
    from .worker import Channel

__all__ = ["make_shards"]

GRACE = 10.0
GO_ON = "what was sealed is kept, the same command goes on from there"


def make_shards(
    specs: Sequence[ShardSpec],
    decomposer: Decomposer,
    workers: Sequence[Worker] = (),
    advance: Advance = lambda count: None,
) -> Generator[Made, None, None]:
    """Make shards and yield each when it is sealed; with two or more ``workers`` in their processes, in no fixed order.

    With fewer they are made here by ``decomposer``, in order. ``specs`` are of one version. Closing the iterator stops the
    workers at once. Raises what ``run_shard`` raises, in whatever process, and WorkerError where a worker's process ends or
    its decomposer is of another recipe; first it yields what the other workers had sealed till then.
    """
    if len(workers) < 2 or not specs:
        for spec in specs:
            yield Made(spec, *run_shard(spec, decomposer, advance))
        return
    with closing(share_out(specs, workers, advance)) as shards:
        yield from shards


def share_out(specs: Sequence[ShardSpec], workers: Sequence[Worker], advance: Advance) -> Generator[Made, None, None]:
    """Give each worker one shard after another, and stop all of them where one fails."""
    todo, trouble = deque(specs), None
    try:
        with crew(workers[: len(specs)], specs[0].header.recipe) as hands:
            busy: dict[Any, Hand] = {hand.channel: hand for hand in hands}
            while busy and trouble is None:
                for channel in wait(busy):
                    message = busy[channel].listen()
                    if isinstance(message, Ready | Made) and not busy[channel].give(todo):
                        del busy[channel]
                    if isinstance(message, Advanced):
                        advance(message.count)
                    elif isinstance(message, Made):
                        yield message
                    elif isinstance(message, Raised):
                        trouble = trouble or message.error
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
        self.name, self.resting = name, False
        self.channel: Channel
        self.channel, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, worker.make, recipe), name=name, daemon=True)
        with interrupts_held(), theirs:
            self.process.start()

    def give(self, todo: deque[ShardSpec]) -> bool:
        """Hand over the next shard; where there is none, send the worker home and return False."""
        self.resting = not todo
        with suppress(OSError):  # it is gone: ``listen`` is where that is told
            self.channel.send(todo.popleft() if todo else None)
        return not self.resting

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
