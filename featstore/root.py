"""The root folder of a store: where it is, whether it can be written, and who is building in it."""

import errno
import fcntl
import json
import os
import re
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError, LockedError, RemoteError, StoreError
from .lease import hold_lease
from .places import as_remote, path_of
from .transport import READ_ONLY

__all__ = [
    "LOCK",
    "build_lock",
    "check_name",
    "ensure_root",
    "hold_lock",
    "is_held",
    "require_local",
    "resolve_root",
    "version_folder",
]

ENVIRONMENT = "FEATSTORE_ROOT"
DEFAULT = "feature-store"
LOCK = ".build.lock"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def resolve_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the store's root: the argument, else ``$FEATSTORE_ROOT``, else ``./feature-store``; a folder, or any fsspec URL.

    Raises InputError for a URL that holds credentials.
    """
    chosen = root if root is not None else os.environ.get(ENVIRONMENT) or DEFAULT
    return path_of(chosen).expanduser().absolute()


def ensure_root(root: Path) -> Path:
    """Create the root where it is missing and prove that it can be written.

    Raises StoreError where it cannot, with what to do.
    """
    remote = as_remote(root)
    if remote is not None and remote.protocol in READ_ONLY:
        raise StoreError(f"the store {root} can only be read: {remote.protocol}:// has no way to write")
    probe = root / f".write-{uuid.uuid4().hex}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)
    except RemoteError:
        raise
    except OSError as error:
        reason = "it is read-only" if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) else error.strerror
        if remote is not None:
            missing = isinstance(error, FileNotFoundError)
            reason = "there is no such bucket or folder" if missing else "these credentials do not allow it"
        message = f"cannot write to the store {root}: {reason}; choose another with --root or {ENVIRONMENT}"
        raise StoreError(message) from error
    return root


def require_local(root: Path, doing: str) -> None:
    """Raise InputError where the store is behind a URL and ``doing`` works on files of this machine alone."""
    if as_remote(root) is not None:
        raise InputError(f"{doing} needs a store on a local disk: copy {root} to one and give that as --root")


def check_name(name: str) -> str:
    """Return a data set's name if it can be a folder's; raises InputError otherwise."""
    if not NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot name a data set: use letters, digits, '.', '_' and '-'")
    return name


def version_folder(root: Path, dataset: str, backbone: str, digest: str) -> Path:
    """Return ``<root>/<dataset>/<backbone>/<first 12 digits of the digest>``."""
    return root / dataset / backbone / digest[:12]


@contextmanager
def build_lock(root: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the root's build lock; ``wait`` is how long to wait for another holder [s].

    Raises LockedError naming the holder.
    """
    with hold_lock(root / LOCK, f"building in {root}", wait):
        yield


@contextmanager
def hold_lock(path: Path, doing: str, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock file ``path``; the kernel frees it when the process ends, however it ends. Remote ones: see ``lease``.

    ``doing`` says in words what its holder does. Raises LockedError naming the holder after ``wait`` seconds.
    """
    hint = "wait for it, or give --wait" if path.name == LOCK else "wait for it, or end it"
    remote = as_remote(path)
    if remote is not None:
        with hold_lease(remote, doing, wait, hint):
            yield
        return
    deadline = time.monotonic() + wait
    with path.open("a+", encoding="utf-8") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise LockedError(f"{holder(path)} is {doing}; {hint}") from None
                time.sleep(0.2)
        handle.seek(0)
        handle.truncate()
        command = " ".join(sys.argv[:1] and [Path(sys.argv[0]).name, *sys.argv[1:]])
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "command": command}, handle)
        handle.flush()
        yield


def is_held(path: Path) -> bool:
    """Whether a process holds the lock file ``path``; a remote one, whether it is there at all."""
    if as_remote(path) is not None:
        return path.is_file()
    try:
        with path.open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def holder(path: Path) -> str:
    """Say in words who holds the lock file ``path``."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        return f"process {entry['pid']} on {entry['host']} ({entry['command']})"
    except (OSError, ValueError, KeyError):
        return "another process"
