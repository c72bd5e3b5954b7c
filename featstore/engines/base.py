"""What a build asks of an engine, and the count of tries that engines over several machines keep."""

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from featstore.compute import Decomposer
from featstore.errors import FeatstoreError, WorkerError
from featstore.run import Advance, ShardSpec
from featstore.worker import Made

__all__ = ["GO_ON", "TRIES", "Engine", "Say", "Tries", "overdue"]

GO_ON = "what was sealed is kept, the same command goes on from there"
TRIES = 3
"""How often a shard is begun, at most, where those who make it die."""

Say = Callable[[str], None]


class Engine(Protocol):
    """Makes shards, each by ``run_shard``, somewhere. It never touches the manifest: the build registers what it is given."""

    def make_shards(
        self,
        specs: Sequence[ShardSpec],
        decomposer: Decomposer,
        advance: Advance = lambda count: None,
        say: Say = lambda line: None,
    ) -> Generator[Made, None, None]:
        """Make shards of one version and yield each when it is sealed, in no fixed order.

        ``decomposer`` says what is computed; who computes may have one of its own. ``advance`` is told of images that are
        through, ``say`` of what a user wants to know. Closing the iterator stops all that works on it. Raises what
        ``run_shard`` raises, wherever it runs, and WorkerError where a worker ends and no other takes its shard over.
        """
        ...


class Tries:
    """Counts how often each shard was lost; one that is lost too often ends the build."""

    def __init__(self, most: int, say: Say) -> None:
        self.most, self.say = most, say
        self.counts: Counter[str] = Counter()

    def lost(self, spec: ShardSpec, who: str, why: str) -> None:
        """Count a worker that ended while it made ``spec``; raises WorkerError, naming the shard, after the last try."""
        self.counts[spec.path.name] += 1
        count = self.counts[spec.path.name]
        images = f"images {spec.images[0].image_id} … {spec.images[-1].image_id}"
        if count >= self.most:
            tries = "1 try" if count == 1 else f"{count} tries"
            raise WorkerError(f"{spec.path.name} ({images}) was given up after {tries}: {who} {why}; {GO_ON}")
        self.say(f"{who} {why}: {spec.path.name} is given to another (try {count + 1} of {self.most})")

    def failed(self, spec: ShardSpec, who: str, error: Exception) -> None:
        """Count an error that was raised in making ``spec``; raises it where it is the store's own, or was the last try."""
        if isinstance(error, FeatstoreError):
            raise error
        try:
            self.lost(spec, who, f"raised {type(error).__name__}: {' '.join(str(error).split())}")
        except WorkerError as last:
            raise last from error


def overdue(timeout: float | None) -> str:
    """Say that a worker was too long at one shard; ``timeout`` [s]."""
    limit = f"{timeout or 0:g} seconds" if (timeout or 0) < 120 else f"{(timeout or 0) / 60:g} minutes"
    return f"was at one shard, or at loading its model, for more than {limit} (--timeout)"
