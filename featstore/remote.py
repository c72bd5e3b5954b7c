"""A path behind a URL: as much of ``pathlib.Path`` as featstore uses, over any fsspec file system."""

import errno
import io
import os
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import unquote

from .errors import StoreError
from .listing import Listing, Status, status_of
from .transport import OBJECTS, READ_ONLY, call, native, parts

__all__ = ["RemotePath"]


class RemotePath:
    """A place on a server. Compares, sorts and pickles by its URL; holds neither connection nor credentials.

    Methods do what those of ``pathlib.Path`` do and raise the same errors, and RemoteError where the server cannot be
    reached. What is made from a ``listed`` folder answers from that listing and asks no more. Folders of object stores are
    beginnings of names: making one does nothing.
    """

    def __init__(self, url: str, listing: Listing | None = None) -> None:
        self.protocol, self.base, path = parts(url)
        self.pure = PurePosixPath("/" + path)
        self.url = f"{self.base}/{path}" if path or self.protocol == "memory" else self.base
        self.listing = listing if listing and listing.covers(self.url) else None

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"RemotePath({self.url!r})"

    def __hash__(self) -> int:
        return hash(self.url)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and self.url == other.url

    def __lt__(self, other: "RemotePath") -> bool:
        return self.url < other.url

    def __reduce__(self) -> tuple[Any, ...]:
        return RemotePath, (self.url,)

    def __truediv__(self, below: object) -> "RemotePath":
        return RemotePath(f"{self.url.rstrip('/')}/{below}" if self.pure.name else f"{self.base}/{below}", self.listing)

    @property
    def name(self) -> str:
        """Return the last part."""
        return self.pure.name

    @property
    def stem(self) -> str:
        """Return the last part without its ending."""
        return self.pure.stem

    @property
    def suffix(self) -> str:
        """Return the ending of the last part."""
        return self.pure.suffix

    @property
    def parent(self) -> "RemotePath":
        """Return the folder that it is in."""
        return RemotePath(self.base + str(self.pure.parent), self.listing)

    def with_name(self, name: str) -> "RemotePath":
        """Return its neighbour of that name."""
        return self.parent / name

    def relative_to(self, other: object) -> PurePosixPath:
        """Return the path below ``other``; raises ValueError where it is not below."""
        above = other if isinstance(other, RemotePath) else RemotePath(str(other))
        if above.base != self.base:
            raise ValueError(f"{self} is not below {other}")
        return self.pure.relative_to(above.pure)

    def as_posix(self) -> str:
        """Return the URL."""
        return self.url

    def absolute(self) -> "RemotePath":
        """Return itself: a URL says all."""
        return self

    expanduser = resolve = absolute

    def listed(self) -> "RemotePath":
        """Return the same place with a listing of all below it: a request a thousand files, where others ask for each."""
        files: dict[str, Status | None] = {}
        start = native(self.url).rstrip("/") + "/"
        found = call(self.url, lambda fs: fs.find(start[:-1], detail=True))
        for name, info in found.items():
            below = name[len(start) :]
            if info.get("type") != "directory" and below and not below.endswith("/"):
                below = unquote(below) if self.protocol in READ_ONLY else below
                # A page of links tells no size: such files are asked for one by one.
                files[(self / below).url] = None if info.get("size") is None else status_of(info)
        return RemotePath(self.url, Listing(self.url, files))

    def info(self) -> dict[str, Any]:
        """Return what the file system tells."""
        told: dict[str, Any] = call(self.url, lambda fs: fs.info(native(self.url)))
        return told

    def stat(self) -> Status:
        """Return size, time and tag."""
        if self.listing is not None:
            known = self.listing.files.get(self.url)
            if known is None and self.url not in self.listing.files:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.url)
            if known is not None:
                return known
        return status_of(self.info())

    def kind(self) -> str:
        """Return "file", "directory", or "" where nothing is."""
        if self.listing is not None:
            return "file" if self.url in self.listing.files else "directory" if self.url in self.listing.folders else ""
        try:
            told = str(self.info().get("type"))
        except FileNotFoundError:
            return ""
        if self.protocol in READ_ONLY:  # a page of links is a file as well
            return "directory" if self.links() else "file"
        return told

    def exists(self) -> bool:
        """Whether there is a file or a folder."""
        return self.kind() != ""

    def is_file(self) -> bool:
        """Whether there is a file."""
        return self.kind() == "file"

    def is_dir(self) -> bool:
        """Whether there is a folder."""
        return self.kind() == "directory"

    def links(self) -> list[Any]:
        """Return what a page of links points to."""
        try:
            found: list[Any] = call(self.url, lambda fs: fs.ls(native(self.url) + "/", detail=True))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return found

    def iterdir(self) -> Iterator["RemotePath"]:
        """Yield files and folders in this folder; raises FileNotFoundError."""
        if self.listing is not None:
            yield from (RemotePath(url, self.listing) for url in self.listing.children(self.url))
            return
        entries = (
            self.links()
            if self.protocol in READ_ONLY
            else call(self.url, lambda fs: fs.ls(native(self.url), detail=True))
        )
        for entry in entries:
            name = entry["name"].rstrip("/").rpartition("/")[2]
            if name and entry["name"].rstrip("/") != native(self.url).rstrip("/"):
                yield self / (unquote(name) if self.protocol in READ_ONLY else name)

    def glob(self, pattern: str) -> Iterator["RemotePath"]:
        """Yield what is in this folder by a pattern of one part; nothing where there is no folder."""
        try:
            yield from (path for path in self.iterdir() if fnmatchcase(path.name, pattern))
        except (FileNotFoundError, NotADirectoryError):
            return

    def rglob(self, pattern: str) -> Iterator["RemotePath"]:
        """Yield files at any depth by a pattern of their names."""
        whole = self if self.listing else self.listed()
        for url in whole.listing.files if whole.listing else ():
            path = RemotePath(url, self.listing)
            if whole.pure in path.pure.parents and fnmatchcase(path.name, pattern):
                yield path

    def read_bytes(self) -> bytes:
        """Return the whole file."""
        # Told to use several connections, s3fs would ask for the size first.
        options = {"max_concurrency": 1} if self.protocol in ("s3", "s3a") else {}
        data: bytes = call(self.url, lambda fs: fs.cat_file(native(self.url), **options))
        return data

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the whole file as text, with line ends of one character."""
        return io.TextIOWrapper(io.BytesIO(self.read_bytes()), encoding=encoding, errors=errors).read()

    def open(self, mode: str = "rb", **_: Any) -> IO[bytes]:
        """Open the file for reading; raises StoreError for other modes: files are written whole, see ``sealing``."""
        if mode != "rb":
            raise StoreError(f"{self.url} cannot be opened for writing piece by piece")
        from .ranges import RangeFile

        return io.BufferedReader(RangeFile(self, keep=False), 1 << 20)

    def write_bytes(self, data: bytes) -> int:
        """Write a whole file; raises StoreError where the protocol only reads."""
        self.change(lambda fs: fs.pipe_file(native(self.url), data))
        return len(data)

    def upload(self, local: Path) -> None:
        """Make this a copy of a local file, whole or not at all."""
        if self.protocol in OBJECTS:
            self.change(lambda fs: fs.put_file(str(local), native(self.url)))
            return
        beside = self.with_name(local.name)  # a temporary name as sealing gives them
        self.change(lambda fs: fs.put_file(str(local), native(beside.url)))
        self.change(lambda fs: fs.mv(native(beside.url), native(self.url)))

    def download(self, local: Path) -> None:
        """Copy the file to a local one."""
        call(self.url, lambda fs: fs.get_file(native(self.url), str(local)))

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Make a folder, where folders are more than names."""
        if self.protocol not in OBJECTS:
            self.change(lambda fs: fs.makedirs(native(self.url), exist_ok=True))

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove a file."""
        try:
            # Object stores do not say whether there was one.
            if not missing_ok:
                self.stat()
            self.change(lambda fs: fs.rm_file(native(self.url)))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rmdir(self) -> None:
        """Remove an empty folder."""
        if self.protocol not in OBJECTS:
            self.change(lambda fs: fs.rmdir(native(self.url)))

    def change(self, do: Callable[[Any], object]) -> None:
        """Call what writes; raises StoreError where the protocol only reads."""
        if self.protocol in READ_ONLY:
            raise StoreError(f"{self.url} cannot be written: {self.protocol}:// only reads")
        call(self.url, do)
