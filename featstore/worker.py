"""The life of one worker process: make a decomposer, then the shards that come through a pipe. Its words to the parent."""

import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import parent_process
from typing import TYPE_CHECKING, Any, NamedTuple

from .compute import Decomposer
from .errors import WorkerError
from .recipe import Recipe
from .run import Sealed, ShardSpec, run_shard
from .shard import ShardContents
from .storage import own_parameters

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    Channel = Connection[Any, Any]

__all__ = ["Advanced", "Made", "Raised", "Ready", "Worker", "work"]


@dataclass(frozen=True)
class Worker:
    """One process of a build: what to call it, and what makes its decomposer there. ``make`` is pickled."""

    name: str
    make: Callable[[], Decomposer]


class Made(NamedTuple):
    """A sealed shard: its plan, what it holds, and the seconds that each image took, by SHA-256; and those made beside it."""

    spec: ShardSpec
    contents: ShardContents
    seconds: dict[str, float]
    beside: tuple[Sealed, ...] = ()


@dataclass(frozen=True)
class Ready:
    """Said by a worker that has its decomposer."""


@dataclass(frozen=True)
class Advanced:
    """Said by a worker of images that are through."""

    count: int


@dataclass(frozen=True)
class Raised:
    """Said by a worker that gives up, or in the name of one that is gone."""

    error: Exception


def work(channel: "Channel", make: Callable[[], Decomposer], recipe: str) -> None:
    """Make the shards that come through ``channel``, until None comes: the whole life of a worker's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C too, and decides
    threading.Thread(target=die_with_parent, daemon=True).start()
    try:
        decomposer = make()
        check_recipe(decomposer, recipe)
        channel.send(Ready())
        while (spec := channel.recv()) is not None:
            channel.send(Made(spec, *run_shard(spec, decomposer, lambda count: channel.send(Advanced(count)))))
    except Exception as error:
        with suppress(OSError):
            channel.send(Raised(portable(error)))
    sys.stdout.flush()
    sys.stderr.flush()
    # Nothing is open here. The interpreter's farewell is slow with a model loaded, and DuckDB's bindings print leaks in it.
    os._exit(0)


def die_with_parent() -> None:
    """End this process when its parent is gone, however that ended: the lock on the store is gone with it."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def check_recipe(decomposer: Decomposer, recipe: str) -> None:
    """Raise WorkerError where a worker would compute other numbers than those the version is of."""
    parts = getattr(decomposer, "parts", (decomposer,))
    recipes = [Recipe.of(part.recipe()).parameters() for part in parts]
    planned = own_parameters(Recipe(recipe, "").parameters())
    if planned in recipes:
        return
    own = recipes[0]
    keys = sorted(key for key in planned.keys() | own.keys() if planned.get(key) != own.get(key))
    raise WorkerError(
        f"a worker's recipe is not the version's: they differ in {', '.join(keys)}; "
        "are the devices alike, and did the weights stay the same?"
    )


def portable(error: Exception) -> Exception:
    """Return an error that comes through a pipe as it is, with the traceback of its own process for ``--debug``."""
    told = "".join(traceback.format_exception(error))
    try:
        copy = pickle.loads(pickle.dumps(error))
        same = type(copy) is type(error) and str(copy) == str(error)
    except Exception:
        same = False
    if not same:
        error = WorkerError(f"{type(error).__name__}: {error}")
    error.add_note(f"In the worker:\n{told}")
    return error
