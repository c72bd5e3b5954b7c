"""Engine `ray`: a pool of Ray actors, each with the model loaded once; a shard whose actor or node dies goes to another."""

import time
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from featstore.compute import Decomposer
from featstore.errors import WorkerError
from featstore.run import Advance, ShardSpec
from featstore.sealing import sweep
from featstore.worker import Made, Raised, Ready, Worker

from .base import GO_ON, TRIES, Say, Tries, overdue
from .errand import Errand, Process, errand
from .maker import Maker
from .ray_cluster import Lost, answer, capacity, connected, needs

__all__ = ["RayEngine"]

TICK, LOOK = 0.5, 5.0  # [s]: between two looks at the answers, and at the cluster
PATIENCE = 15.0  # [s] without a single actor, before that is told


@dataclass(frozen=True)
class RayEngine:
    """Makes shards by Ray actors, each of which takes ``cpus`` and ``gpus`` of its node and holds one decomposer.

    ``address`` is a cluster's; None is the one that runs on this machine or that RAY_ADDRESS names, and one of this machine
    alone where there is none. There are ``actors`` of them, or as many as the nodes have room for; those that find none wait
    for nodes to come. A shard is begun ``tries`` times at most; ``timeout`` is how long it, or loading the model, may take [s]
    before the actor counts as hung.
    """

    worker: Worker
    address: str | None = None
    actors: int | None = None
    cpus: float = 1
    gpus: float = 0
    tries: int = TRIES
    timeout: float | None = None

    def make_shards(
        self,
        specs: Sequence[ShardSpec],
        decomposer: Decomposer,
        advance: Advance = lambda count: None,
        say: Say = lambda line: None,
    ) -> Generator[Made, None, None]:
        """Make shards in no fixed order; ``advance`` is told of a shard's images when it is sealed. See ``Engine``."""
        if not specs:
            return
        with (
            connected(self.address, say) as ray,
            errand(specs, self.worker.make) as task,
            closing(Pool(ray, self, specs, task, say)) as pool,
        ):
            for made in pool.results():
                advance(len(made.spec.images))
                yield made


@dataclass
class Hand:
    """The driver's end of one actor."""

    actor: Any
    process: Process | None = None
    spec: ShardSpec | None = None
    ready: bool = False
    since: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        return f"the actor in {self.process}" if self.process else "an actor that was about to start"


class Pool:
    """The actors of one build, and what is left to make."""

    def __init__(self, ray: Any, engine: RayEngine, specs: Sequence[ShardSpec], task: Errand, say: Say) -> None:
        self.ray, self.engine, self.say = ray, engine, say
        self.todo = deque(specs)
        self.folders = {spec.path.parent for spec in specs}
        self.tries = Tries(engine.tries, say)
        self.task = ray.put(task)
        self.kind = ray.remote(num_cpus=engine.cpus, num_gpus=engine.gpus, max_restarts=0)(Maker)
        self.waiting: dict[Any, Hand] = {}
        self.dead: set[tuple[str, int]] = set()
        self.begun, self.stillborn, self.looked, self.room = False, 0, 0.0, 0
        self.started = time.monotonic()

    def results(self) -> Generator[Made, None, None]:
        """Yield shards as they are made."""
        while self.todo or any(hand.spec for hand in self.waiting.values()):
            self.hire()
            done, _ = self.ray.wait(list(self.waiting), timeout=TICK)
            for reference in done:
                hand = self.waiting.pop(reference)
                said = answer(self.ray, reference)
                if isinstance(said, Made):
                    hand.spec = None
                    yield said
                self.go_on(hand, said)
            self.end_hung()

    def go_on(self, hand: Hand, said: Process | Ready | Made | Raised | Lost) -> None:
        """Give an actor what comes next after what it said, or send it home."""
        if isinstance(said, Process):
            hand.process = said
            self.ask(hand, hand.actor.begin.remote(self.task))
        elif isinstance(said, Lost):
            self.bury(hand, said.why)
        elif isinstance(said, Raised):
            self.dismiss(hand)
            self.judge(hand, said.error)
        elif self.todo:
            hand.ready = self.begun = True
            hand.spec = self.todo.popleft()
            self.ask(hand, hand.actor.make.remote(hand.spec))
        else:
            self.dismiss(hand)

    def ask(self, hand: Hand, reference: Any) -> None:
        """Wait for an answer of an actor."""
        hand.since = time.monotonic()
        self.waiting[reference] = hand

    def judge(self, hand: Hand, error: Exception) -> None:
        """Count an error: one in making a shard may be its machine's; one before the first shard of all is everybody's."""
        if hand.spec is not None:
            self.tries.failed(hand.spec, str(hand), error)
            self.todo.appendleft(hand.spec)
        elif not self.begun or not self.more_may_come():
            raise error
        else:
            self.say(f"{hand} is left out: {' '.join(str(error).split())}")

    def bury(self, hand: Hand, why: str) -> None:
        """Count a death, and clear away what the dead actor was writing."""
        self.dismiss(hand)
        if hand.process is not None:
            self.dead.add((hand.process.host, hand.process.pid))
        if hand.spec is not None:
            self.tries.lost(hand.spec, str(hand), why)
            self.todo.appendleft(hand.spec)
        elif not self.more_may_come():
            raise WorkerError(
                f"{self.stillborn} actors ended before their first shard, the last: {hand} {why}; {GO_ON}"
            )
        for folder in self.folders:
            sweep(folder, self.dead)

    def more_may_come(self) -> bool:
        """Count an actor that never made a shard; whether there may be another in its place."""
        self.stillborn += 1
        return self.stillborn < self.engine.tries

    def hire(self) -> None:
        """Have as many actors as there is work and room for; nodes that come bring more, and what died is replaced."""
        now = time.monotonic()
        if now - self.looked > LOOK:
            self.looked, self.room = now, capacity(self.ray, self.engine.cpus, self.engine.gpus)
        busy = sum(hand.spec is not None for hand in self.waiting.values())
        wanted = min(self.engine.actors or max(1, self.room), len(self.todo) + busy)
        for _ in range(wanted - len(self.waiting)):
            actor = self.kind.remote()
            self.ask(Hand(actor), actor.hello.remote())
        if self.started and not any(hand.process for hand in self.waiting.values()) and now - self.started > PATIENCE:
            self.say(f"waiting for a node with {needs(self.engine.cpus, self.engine.gpus)} free")
            self.started = 0.0

    def end_hung(self) -> None:
        """End the actors that are at one shard for too long."""
        limit, now = self.engine.timeout, time.monotonic()
        for reference, hand in list(self.waiting.items()):
            if limit and hand.process is not None and now - hand.since > limit:
                del self.waiting[reference]
                self.bury(hand, overdue(limit))

    def dismiss(self, hand: Hand) -> None:
        """End an actor at once; one that has ended already is no matter."""
        self.ray.kill(hand.actor)

    def close(self) -> None:
        """End every actor, and clear away what they were writing."""
        hands = list(self.waiting.values())
        self.waiting = {}
        for hand in hands:
            self.dismiss(hand)
        self.dead |= {(hand.process.host, hand.process.pid) for hand in hands if hand.process}
        for hand in hands:
            answer(self.ray, hand.actor.hello.remote(), timeout=TICK)  # until its death is known
        for folder in self.folders:
            sweep(folder, self.dead)
