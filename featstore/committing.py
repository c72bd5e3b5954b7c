"""Listing sealed shards: each by itself on a disk, several at a time behind a URL, where a commit uploads the manifest."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from . import manifest
from .errors import StoreError
from .places import as_remote
from .registry import commit_shard
from .shard import ShardContents

__all__ = ["Committer", "together"]

PAUSE, SHARE = 30.0, 20.0
"""Shards of a remote store are listed every so many seconds, and with a twentieth of the time at most."""


@contextmanager
def together(root: Path) -> Iterator[None]:
    """Make one transaction, and one upload, of all that this thread writes to a remote manifest in the block."""
    if as_remote(root) is None:
        yield
        return
    with manifest.writing(root) as connection:
        manifest.HELD.connections = {root: connection}
        try:
            yield
        finally:
            del manifest.HELD.connections


class Committer:
    """Lists the shards of one build. A build that dies loses none: those sealed are taken in by the next one.

    What waits is listed when the block ends, unless the store is what failed.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.next, self.remote = root, 0.0, as_remote(root) is not None
        self.waiting: list[tuple[Path, ShardContents, Mapping[str, float]]] = []

    def __enter__(self) -> "Committer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        if kind is None or not issubclass(kind, StoreError):
            self.flush()

    def add(self, path: Path, contents: ShardContents, seconds: Mapping[str, float]) -> None:
        """List a shard, now or soon; ``seconds`` is what each image took."""
        self.waiting.append((path, contents, seconds))
        if not self.remote or time.monotonic() >= self.next:
            self.flush()

    def flush(self) -> None:
        """List all that wait."""
        if not self.waiting:
            return
        started = time.monotonic()
        with together(self.root):
            for path, contents, seconds in self.waiting:
                commit_shard(self.root, path, contents, seconds)
        self.waiting = []
        self.next = time.monotonic() + max(PAUSE, SHARE * (time.monotonic() - started))
