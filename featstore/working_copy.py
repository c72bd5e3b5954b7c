"""Local copies of remote files: the manifest, since DuckDB works on local files alone, and weights."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from filecmp import cmp
from hashlib import blake2b
from pathlib import Path

from .cache import cache_folder
from .errors import NotInStoreError, StoreError
from .lease import hold_lease
from .listing import Status
from .places import as_remote
from .remote import RemotePath

__all__ = ["changed_copy", "derived_copy", "fetched", "local_copy", "require_copy"]

LOCK = ".manifest.lock"
WAIT = 600.0


def fetched(path: RemotePath) -> Path:
    """Return a local copy of the file as it is now, downloaded where the last one is older; raises FileNotFoundError."""
    return copy_of(path, path.stat())


def local_copy(path: Path) -> Path:
    """Return a local file itself, of a remote one a copy as it is now, for what takes files of this machine alone."""
    remote = as_remote(path)
    return path if remote is None else fetched(remote)


def copy_of(path: RemotePath, status: Status) -> Path:
    """Return the local copy of one state of a file. A state has a name of its own: who reads an older one goes on with it."""
    folder = folder_of(path)
    local = folder / f"{name_of(status)}{path.suffix}"
    if not local.is_file():
        temporary = local.with_name(f".{uuid.uuid4().hex}")
        try:
            path.download(temporary)
            if temporary.stat().st_size != status.st_size:
                raise StoreError(f"{path} changed while it was read: try again")
            temporary.replace(local)
        finally:
            temporary.unlink(missing_ok=True)
        forget_others(local)
    return local


def derived_copy(path: RemotePath, name: str, change: Callable[[Path], None]) -> Path:
    """Return a local copy of the file as it is now that ``change`` was let loose on, for what can only be read."""
    local = fetched(path)
    made = local.with_name(f"{local.stem}-{name}{local.suffix}")
    if not made.is_file():
        temporary = local.with_name(f".{uuid.uuid4().hex}")
        try:
            shutil.copyfile(local, temporary)
            change(temporary)
            temporary.replace(made)
        finally:
            temporary.unlink(missing_ok=True)
    return made


def folder_of(path: RemotePath) -> Path:
    """Return where the copies of a file lie."""
    return cache_folder(f"copies/{blake2b(path.url.encode(), digest_size=12).hexdigest()}")


def name_of(status: Status) -> str:
    """Return the name of one state of a file."""
    return blake2b(f"{status.tag} {status.st_size} {status.st_mtime_ns}".encode(), digest_size=12).hexdigest()


def forget_others(local: Path) -> None:
    """Remove copies of other states; who has one open keeps it until it closes."""
    for other in local.parent.glob(f"*{local.suffix}"):
        if other != local:
            with suppress(OSError):
                other.unlink()


@contextmanager
def changed_copy(path: RemotePath) -> Iterator[Path]:
    """Yield a local copy to change, empty of a file where there is none yet, and upload it when the block ends well.

    Nobody else changes the file meanwhile: writers of all machines take turns. Raises LockedError naming who has the turn
    after ten minutes, StoreError, RemoteError.
    """
    with hold_lease(path.with_name(LOCK), f"writing {path}", WAIT) as lease:
        before: Status | None = None
        with suppress(FileNotFoundError):
            before = path.stat()
        mine = folder_of(path) / f".{os.getpid()}-{uuid.uuid4().hex}{path.suffix}"
        try:
            if before is not None:
                shutil.copyfile(copy_of(path, before), mine)
            yield mine
            if before is not None and cmp(copy_of(path, before), mine, shallow=False):
                return
            lease.check()
            path.upload(mine)
            after = folder_of(path) / f"{name_of(path.stat())}{path.suffix}"
            mine.replace(after)
            forget_others(after)
        finally:
            mine.unlink(missing_ok=True)


def require_copy(path: RemotePath, problem: str) -> Path:
    """Return the local copy as it is now; raises NotInStoreError, saying ``problem``, where there is no file."""
    try:
        return fetched(path)
    except FileNotFoundError as error:
        raise NotInStoreError(problem) from error
