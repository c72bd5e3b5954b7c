"""A lock that several machines share: one object made by whoever comes first, kept alive by a heartbeat."""

import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import LockedError, RemoteError, StoreError
from .remote import RemotePath
from .sealing import lives
from .transport import call, native

__all__ = ["Lease", "hold_lease"]

BEAT = 10.0
"""How often a holder says that it is alive [s]."""

STALE = 60.0
"""How long a lock must not change before it is a dead holder's [s of the waiter's own clock]."""

LOOK = 0.5
ABSENT = 10
CONDITIONAL = ("s3", "s3a")
"""Where a file can be replaced on condition that it is still what was read."""


class Lease:
    """A lock held. ``check`` raises LockedError where somebody else took it for dead and has it now."""

    def __init__(self, path: RemotePath, entry: dict[str, Any]) -> None:
        self.path, self.entry = path, entry
        self.over = threading.Event()
        self.taken_by: dict[str, Any] | None = None

    def check(self) -> None:
        """Raise LockedError where the lock is not ours any more."""
        found = read(self.path)
        if found.get("nonce") != self.entry["nonce"]:
            self.taken_by = found
        if self.taken_by is not None:
            raise LockedError(
                f"{self.path} was taken over by {name_of(self.taken_by)}, since this process was not heard of for a "
                "minute; the same command goes on from what is stored"
            )

    def beat(self) -> None:
        """Say every few seconds that the holder is alive, until the lease is over."""
        while not self.over.wait(BEAT):
            # Whatever goes wrong here is the holder's to find at its next call: a thread has nobody to tell.
            with suppress(Exception):
                tag = self.path.stat().tag
                self.check()
                self.entry["beat"] += 1
                replace(self.path, encoded(self.entry), tag)
            if self.taken_by is not None:
                return

    def release(self) -> None:
        """Remove the lock where it is still ours."""
        with suppress(LockedError, RemoteError, OSError):
            self.check()
            self.path.unlink(missing_ok=True)


@contextmanager
def hold_lease(
    path: RemotePath, doing: str, wait: float = 0.0, hint: str = "wait for it, or end it"
) -> Iterator[Lease]:
    """Hold the lock ``path``. A holder that died is noticed: at once on its own machine, elsewhere after ``STALE`` seconds.

    ``doing`` says in words what its holder does. Raises LockedError naming the holder after ``wait`` seconds, at the earliest
    when it has been seen alive.
    """
    entry = {
        "nonce": uuid.uuid4().hex,
        "beat": 0,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "machine": machine(),
    }
    entry["command"] = " ".join(sys.argv[:1] and [Path(sys.argv[0]).name, *sys.argv[1:]])
    acquire(path, entry, doing, wait, hint)
    lease = Lease(path, entry)
    heart = threading.Thread(target=lease.beat, name=f"heartbeat of {path.name}", daemon=True)
    heart.start()
    try:
        yield lease
    finally:
        lease.over.set()
        heart.join()
        lease.release()


def acquire(path: RemotePath, entry: dict[str, Any], doing: str, wait: float, hint: str) -> None:
    """Make the lock, or take a dead holder's."""
    deadline = time.monotonic() + wait
    seen: dict[str, Any] = {}
    since, absent = time.monotonic(), 0
    while not create(path, encoded(entry)):
        found = read(path)
        absent = 0 if found else absent + 1
        if absent > ABSENT:
            raise StoreError(f"{path} can neither be made nor found: see whether files may be written there")
        alive = found.get("nonce") == seen.get("nonce") and found != seen
        if found != seen:
            seen, since = found, time.monotonic()
        if found and (is_dead(found) or time.monotonic() - since >= STALE):
            if take_over(path, found, entry):
                return
        elif time.monotonic() >= deadline and found and (alive or is_here(found)):
            raise LockedError(f"{name_of(found)} is {doing}; {hint}")
        time.sleep(LOOK if found else 0.0)


def create(path: RemotePath, data: bytes) -> bool:
    """Make the lock where there is none; returns whether it is ours."""

    def make(fs: Any) -> None:
        if path.protocol in ("sftp", "ssh"):
            with fs.ftp.open(native(path.url), "wx") as file:
                file.write(data)
        else:
            fs.pipe_file(native(path.url), data, mode="create")

    try:
        call(path.url, make, tries=1)
    except (FileExistsError, RemoteError):
        # Servers have many words for "it is there"; and an answer may be lost when the deed is done.
        try:
            return path.read_bytes() == data
        except FileNotFoundError:
            return False
    return True


def take_over(path: RemotePath, found: dict[str, Any], entry: dict[str, Any]) -> bool:
    """Replace a dead holder's lock by ours; False where another was quicker."""
    try:
        tag = path.stat().tag
        if read(path) != found:
            return False
        replace(path, encoded(entry), tag)
    except (RemoteError, FileNotFoundError):
        return read(path) == entry
    if path.protocol not in CONDITIONAL:
        time.sleep(2 * LOOK)  # two may have been here at once: the last to write has it
    return read(path) == entry


def replace(path: RemotePath, data: bytes, tag: str) -> None:
    """Write the lock anew; where the server can, only if it is still the one of that tag."""
    condition = {"IfMatch": tag} if path.protocol in CONDITIONAL else {}
    call(path.url, lambda fs: fs.pipe_file(native(path.url), data, **condition), tries=1)


def read(path: RemotePath) -> dict[str, Any]:
    """Return what the lock says, {} where there is none."""
    try:
        told: dict[str, Any] = json.loads(path.read_bytes() or b"{}")
    except FileNotFoundError:
        return {}
    except ValueError:
        return {"nonce": "?"}
    return told


def encoded(entry: dict[str, Any]) -> bytes:
    """Return the lock's bytes."""
    return json.dumps(entry, sort_keys=True).encode()


def name_of(entry: dict[str, Any]) -> str:
    """Say in words who holds a lock."""
    if not {"pid", "host", "command"} <= entry.keys():
        return "another process"
    return f"process {entry['pid']} on {entry['host']} ({entry['command']})"


def machine() -> str:
    """Return what tells this machine's processes from others that have the same numbers: boot and namespace."""
    told = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with suppress(OSError):
            told.append(str(Path(path).readlink()) if "ns" in path.split("/") else Path(path).read_text().strip())
    return " ".join(told)


def is_here(entry: dict[str, Any]) -> bool:
    """Whether the holder is a process of this machine."""
    return entry.get("machine") == machine()


def is_dead(entry: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine and is gone."""
    return is_here(entry) and isinstance(entry.get("pid"), int) and not lives(entry["pid"])
