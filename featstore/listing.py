"""What a server tells of its files: size, time and tag of one, or of all below a folder at once."""

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from typing import Any, NamedTuple

__all__ = ["Listing", "Status", "status_of"]

STAMPS = ("LastModified", "last_modified", "updated", "mtime", "created", "Last-Modified")
TAGS = ("ETag", "etag", "md5Hash", "generation", "Content-MD5")
SECOND = 1_000_000_000


class Status(NamedTuple):
    """Size [bytes], time of change [ns since 1970], and a word that changes whenever the bytes do.

    Servers tell whole seconds: the rest of ``st_mtime_ns`` is drawn from their tag, so that a file written twice in a second
    is seen to have changed. Where they tell neither it is the present, which is never what it was before.
    """

    st_size: int
    st_mtime_ns: int
    tag: str

    @property
    def st_mtime(self) -> float:
        """Return the time of change [s since 1970]."""
        return self.st_mtime_ns / SECOND


def status_of(info: Mapping[str, Any]) -> Status:
    """Read what a file system tells of a file."""
    size = int(info.get("size") or 0)
    tag = next((str(info[key]) for key in TAGS if info.get(key)), "")
    seconds = next((told for key in STAMPS if (told := to_seconds(info.get(key))) is not None), None)
    if seconds is None and not tag:
        return Status(size, time.time_ns(), f"{size}-{time.time_ns()}")
    if not tag:
        nanoseconds = round((seconds or 0) * 1_000_000) * 1000
        return Status(size, nanoseconds, f"{size}-{nanoseconds}")
    drawn = int.from_bytes(blake2b(tag.encode(), digest_size=8).digest(), "big") % SECOND
    return Status(size, int(seconds or 0) * SECOND + drawn, tag)


def to_seconds(stamp: Any) -> float | None:
    """Return a file system's time in seconds since 1970, None where there is none."""
    with suppress(ValueError, TypeError):
        if isinstance(stamp, str):
            try:
                stamp = datetime.fromisoformat(stamp)
            except ValueError:
                stamp = parsedate_to_datetime(stamp)
        if isinstance(stamp, datetime):
            return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()
        return float(stamp)
    return None


class Listing:
    """All files below one place, by URL, as they were when it was asked; None where only the name is told.

    A place without files is taken for none, as object stores do.
    """

    def __init__(self, url: str, files: Mapping[str, Status | None]) -> None:
        self.prefix, self.files = url.rstrip("/") + "/", files
        self.folders: dict[str, list[str]] = {url: []} if files else {}
        for path in files:
            self.enter(path)

    def enter(self, path: str) -> None:
        """Note a file in its folder, and that folder in those above."""
        while True:
            folder = path.rpartition("/")[0]
            known = folder in self.folders
            self.folders.setdefault(folder, []).append(path)
            if known or len(folder) < len(self.prefix):
                return
            path = folder

    def covers(self, url: str) -> bool:
        """Whether this listing answers for ``url``."""
        return url + "/" == self.prefix or url.startswith(self.prefix)

    def children(self, url: str) -> Iterator[str]:
        """Yield the files and folders in a folder; raises FileNotFoundError."""
        if url not in self.folders:
            raise FileNotFoundError(url)
        yield from self.folders[url]
