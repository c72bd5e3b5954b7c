"""Ray itself, at arm's length: joining a cluster quietly, what room its nodes have, and how an actor's answer reads."""

import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from featstore.errors import InputError, WorkerError
from featstore.worker import Raised

from .base import GO_ON, Say

__all__ = ["Lost", "answer", "capacity", "connected", "needs"]

STORE = 128 * 2**20  # bytes of a cluster's object store that we start: specs and reports go through it, features never
PATIENCE = 10.0  # [s]


@dataclass(frozen=True)
class Lost:
    """In place of an answer: the actor is gone."""

    why: str


@contextmanager
def connected(address: str | None, say: Say) -> Iterator[Any]:
    """Yield the module ``ray``, joined to a cluster; who joined it here leaves it again, and stops what was started for it.

    Raises InputError where Ray is not installed, WorkerError where no cluster answers at ``address``.
    """
    # Nobody who builds features has been asked whether their machine may report to somebody.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise InputError('engine ray needs Ray: pip install "featstore-dvt[ray]"') from error
    mine = not ray.is_initialized()
    with quiet():
        try:
            if mine:
                join(ray, address, say)
            yield ray
        except ray.exceptions.RayError as error:
            raise WorkerError(f"the Ray cluster failed: {first_line(error)}; {GO_ON}") from error
        finally:
            if mine:
                ray.shutdown()


def join(ray: Any, address: str | None, say: Say) -> None:
    """Join the cluster at ``address``, else the one that is known here, else one that is started here."""
    if address is not None:
        check_answers(address)
    options = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False}
    try:
        ray.init(address=address or "auto", **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        if address not in (None, "local") or os.environ.get("RAY_ADDRESS"):
            told = address or os.environ["RAY_ADDRESS"]
            raise WorkerError(f"no Ray cluster answers at {told}: {first_line(error)}") from error
        say("no Ray cluster is running: one is started on this machine, until the build ends")
        try:
            ray.init(address="local", object_store_memory=STORE, **options)
        except Exception as last:
            raise WorkerError(f"Ray does not start on this machine: {first_line(last)}") from last


def check_answers(address: str) -> None:
    """Raise WorkerError where nobody listens at ``host:port``: Ray itself tries for twenty minutes."""
    host, _, port = address.rpartition(":")
    if "/" in address or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except OSError as error:
        raise WorkerError(
            f"no Ray cluster answers at {address}: {error.strerror or error}; is it `ray status`' address?"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Ray from printing its logs on standard output, where a report is expected; what matters is told by ourselves."""
    from ray._private import worker

    before = getattr(worker, "print_to_stdstream", None)
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = before


def capacity(ray: Any, cpus: float, gpus: float) -> int:
    """Return how many actors of ``cpus`` and ``gpus`` the nodes that are there have room for, other work aside."""
    found = 0
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            rooms = [has.get(name, 0) / each for name, each in (("CPU", cpus), ("GPU", gpus)) if each]
            found += int(min(rooms, default=1))
    return found


def needs(cpus: float, gpus: float) -> str:
    """Say in words what an actor takes of a node."""
    return f"{cpus:g} CPU" + (f" and {gpus:g} GPU" if gpus else "")


def answer(ray: Any, reference: Any, timeout: float | None = None) -> Any:
    """Return what an actor said; Lost where it is gone, Raised where Ray could not carry the word."""
    try:
        return ray.get(reference, timeout=timeout)
    except ray.exceptions.ActorUnavailableError as error:
        return Lost(f"cannot be reached: {first_line(error)}")
    except ray.exceptions.RayActorError as error:
        return Lost(f"died ({cause(str(error))})")
    except ray.exceptions.RayTaskError as error:
        return Raised(WorkerError(f"a worker of Ray failed: {last_line(error)}"))
    except ray.exceptions.RayError as error:
        return Lost(f"gave no answer: {first_line(error)}")


def cause(text: str) -> str:
    """Return why an actor died, from Ray's long tale of it."""
    found = re.search(r"because (?:it|its|the) ([^.\n]+)", text)
    return found.group(1).strip() if found else first_line(text)


def first_line(error: object) -> str:
    """Return the first line of a message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip()


def last_line(error: object) -> str:
    """Return the last line of a message: of a traceback, the error."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
