"""What a worker on another machine is sent out with, and what it checks there before it begins."""

import hashlib
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from featstore.compute import Decomposer
from featstore.errors import WorkerError
from featstore.members import container_of
from featstore.run import ShardSpec
from featstore.worker import check_recipe

__all__ = ["Errand", "Process", "errand", "here", "installed"]

SHARED = "every machine must reach the store and the images under the same paths"
PROBE, LOOKED_AT = ".probe-", 16


@dataclass(frozen=True)
class Process:
    """A process somewhere."""

    host: str
    pid: int

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@dataclass(frozen=True)
class Errand:
    """What makes the decomposer elsewhere, and what has to be found there: a file of the store's, an image, the recipe."""

    make: Callable[[], Decomposer]
    recipe: str
    release: str
    probe: Path
    token: str
    image: str | None

    def begin(self) -> Decomposer:
        """Check this machine, load the model, return what computes. Raises WorkerError, and what ``make`` raises."""
        if installed() != self.release:
            raise WorkerError(
                f"{here()} has featstore {installed()}, the build {self.release}: install the same everywhere"
            )
        self.check_store()
        if self.image is not None and not os.path.exists(self.image):  # noqa: PTH110
            raise WorkerError(f"{here()} does not see the images: {self.image} is not there; {SHARED}")
        decomposer = self.make()
        check_recipe(decomposer, self.recipe)
        return decomposer

    def check_store(self) -> None:
        """Raise WorkerError where the store's folder is not the one that the build writes to, or cannot be written here."""
        folder = self.probe.parent
        try:
            found = self.probe.read_text(encoding="utf-8")
        except OSError as error:
            raise WorkerError(f"{here()} does not see the store at {folder}: {error.strerror}; {SHARED}") from error
        if found != self.token:
            raise WorkerError(f"{here()} has another folder at {folder}; {SHARED}")
        mine = folder / probe_name()
        try:
            mine.write_text(self.token, encoding="utf-8")
            mine.unlink()
        except OSError as error:
            raise WorkerError(f"{here()} cannot write to the store at {folder}: {error.strerror}") from error


@contextmanager
def errand(specs: Sequence[ShardSpec], make: Callable[[], Decomposer]) -> Iterator[Errand]:
    """Yield the errand for ``specs``; while the block runs a file lies in their folder for workers to find."""
    folder = specs[0].path.parent
    for left in folder.glob(PROBE + "*"):  # by a build that was killed: who builds now holds the lock
        left.unlink(missing_ok=True)
    probe = folder / probe_name()
    token = f"{probe.name} was written by {here()}"
    try:
        probe.write_text(token, encoding="utf-8")
        yield Errand(make, specs[0].header.recipe, installed(), probe, token, visible_image(specs))
    finally:
        probe.unlink(missing_ok=True)


def probe_name() -> str:
    """Return a name for a probe that no other has."""
    return f"{PROBE}{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def visible_image(specs: Sequence[ShardSpec]) -> str | None:
    """Return the path of an image, or of the shard with its raw map, that is there; None where none of the first few is."""
    images = specs[0].images[:LOOKED_AT]
    paths = (str(image.stored.shard) if image.stored else container_of(image.path) for image in images)
    return next((path for path in paths if os.path.exists(path)), None)  # noqa: PTH110


def here() -> Process:
    """Return this process."""
    return Process(socket.gethostname(), os.getpid())


def installed() -> str:
    """Return the release of featstore that is installed, and the first digits of a digest of its code.

    Two checkouts of one release differ, and with them what they compute.
    """
    try:
        release = version("featstore-dvt")
    except PackageNotFoundError:
        release = "of unknown release"
    return f"{release} (code {code_digest()[:8]})"


@cache
def code_digest() -> str:
    """Return the SHA-256 over the names and texts of the modules that workers run, in hex."""
    digest = hashlib.sha256()
    for package in ("featstore", "dvt"):
        spec = find_spec(package)
        for place in spec.submodule_search_locations or [] if spec else []:
            for path in sorted(Path(place).rglob("*.py")):
                digest.update(f"{package}/{path.relative_to(place).as_posix()}\n".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()
