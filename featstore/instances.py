"""DuckDB instances that a process keeps: to start one takes ten times as long as to open a manifest in one that runs."""

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

__all__ = ["attach", "lent"]

KEPT = 2
IDLE: list[duckdb.DuckDBPyConnection] = []
LEFT: list[duckdb.DuckDBPyConnection] = []
"""What a forked process found idle: its parent's, not to be used and not to be taken apart."""


def forget() -> None:
    """Begin with no instance of one's own, after a fork."""
    LEFT.extend(IDLE)
    IDLE.clear()


def end() -> None:
    """End those that are idle, while Python still runs: taken apart with it, an instance can crash."""
    while IDLE:
        IDLE.pop().close()


os.register_at_fork(after_in_child=forget)
atexit.register(end)


def attach(path: Path) -> str:
    """Return the SQL that attaches a manifest read-only, as ``manifest``."""
    return "ATTACH '" + str(path).replace("'", "''") + "' AS manifest (READ_ONLY)"


@contextmanager
def lent() -> Iterator[duckdb.DuckDBPyConnection]:
    """Lend a connection to an in-memory DuckDB that nobody else uses meanwhile; a ``manifest`` in it is detached afterwards.

    An instance in which something went wrong is ended. One that is kept has no threads while it is idle, so that a fork
    finds none.
    """
    try:
        instance = IDLE.pop()
    except IndexError:
        instance = duckdb.connect(":memory:")
    connection = instance.cursor()
    whole = False
    try:
        connection.execute("RESET threads")
        yield connection
        connection.execute("USE memory")
        connection.execute("DETACH DATABASE IF EXISTS manifest")
        instance.execute("SET threads TO 1")
        whole = len(IDLE) < KEPT
    finally:
        connection.close()
        if whole:
            IDLE.append(instance)
        else:
            instance.close()
