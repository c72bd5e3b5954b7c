"""Calls over the network: one file system a process and host, lost connections tried again, every end of it one line."""

import errno
import os
import random
import re
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar
from urllib.parse import quote

from .errors import FeatstoreError, InputError, RemoteError, StoreError

__all__ = ["OBJECTS", "READ_ONLY", "call", "file_system", "lasting", "native", "parts", "redacted"]

T = TypeVar("T")

OBJECTS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az", "memory"})
"""Where a put is all or nothing and a folder is but a beginning of names."""

READ_ONLY = frozenset({"http", "https"})
EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gs",
    "gcs": "gs",
    "http": "http",
    "https": "http",
    "ssh": "ssh",
    "sftp": "ssh",
}
TRIES, PAUSE = 5, 0.25
"""How often a call is made, and how long the first pause is [s]; each is twice the one before, give or take a half."""

BUGS = (TypeError, AttributeError, LookupError, AssertionError, NameError)
SIGNED = re.compile(r"(?<=[^\s?'\"])\?[^\s'\")]+")
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
}

OPEN: dict[tuple[int, str], tuple[Any, Any]] = {}
OPENING = threading.Lock()


def parts(url: str) -> tuple[str, str, str]:
    """Return the protocol of a URL, all of it before the path (protocol, user, host, port or bucket), and the path."""
    protocol, _, rest = url.partition("://")
    host, _, path = ("", "", rest) if protocol == "memory" else rest.partition("/")
    path = "/".join(name for name in path.split("/") if name not in ("", "."))
    return protocol, "memory:/" if protocol == "memory" else f"{protocol}://{host}", path


def file_system(url: str) -> tuple[Any, Any]:
    """Return fsspec's file system of a URL, and what to hold while calling it.

    One for this process, of its own after a fork. Credentials and endpoints are what fsspec and the file system find in the
    environment and their own files. Raises InputError where the package for the protocol is not installed.
    """
    protocol, base, _ = parts(url)
    key = (os.getpid(), base)
    with OPENING:
        if key not in OPEN:
            OPEN[key] = open_file_system(protocol, base)
        return OPEN[key]


def open_file_system(protocol: str, base: str) -> tuple[Any, Any]:
    """Make a file system that keeps no listing, since others write too."""
    import fsspec

    options: dict[str, Any] = {"skip_instance_cache": True}
    if protocol in OBJECTS:
        options |= {"use_listings_cache": False}
    if protocol in READ_ONLY:
        options |= {"simple_links": False}
    try:
        made = fsspec.core.url_to_fs(f"{base}/", **options)[0]
    except (ImportError, ValueError) as error:
        if isinstance(error, ValueError) and "rotocol" not in str(error):
            raise
        extra = EXTRAS.get(protocol)
        hint = f': python -m pip install "featstore-dvt[{extra}]"' if extra else f" in fsspec: {redacted(error)}"
        raise InputError(f"{protocol}:// needs a package that is not installed{hint}") from error
    if hasattr(made, "retries"):
        made.retries = 1  # s3fs would try five times in each of ours
    # What is not made of coroutines is not made for several threads either.
    return made, nullcontext() if getattr(made, "async_impl", False) else threading.RLock()


def native(url: str) -> str:
    """Return a URL as its file system writes it."""
    protocol, base, path = parts(url)
    if protocol in READ_ONLY:
        return f"{base}/{quote(path)}"
    return str(file_system(url)[0]._strip_protocol(url))


def call(url: str, do: Callable[[Any], T], tries: int | None = None) -> T:
    """Return ``do(file system of url)``; a lost connection is tried again, with pauses that grow.

    Raises FileNotFoundError, PermissionError and their like with the URL in them, RemoteError where the place cannot be
    reached, InputError where a package is missing.
    """
    left = TRIES if tries is None else tries
    pause = PAUSE
    while True:
        left -= 1
        try:
            system, alone = file_system(url)
            with alone:
                return do(system)
        except Exception as error:
            final = lasting(error, url)
            if final is not None:
                raise final from error
            if left <= 0:
                raise RemoteError(
                    f"{url} cannot be reached: {reason(error.__cause__ or error)}; the same command goes on from there"
                ) from error
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause *= 2


def lasting(error: BaseException, url: str) -> Exception | None:
    """Return what an error means that trying again does not mend; None for a lost connection."""
    cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error  # HTTP hides it so
    told = getattr(cause, "response", None)  # botocore's
    code = told.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(told, dict) else None
    status = code or getattr(cause, "status", None)
    name = type(cause).__name__
    if isinstance(cause, (FeatstoreError, *BUGS)):
        return cause
    if status in (404, 410) or isinstance(cause, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
    if status in (401, 403) or isinstance(cause, PermissionError):
        return PermissionError(errno.EACCES, os.strerror(errno.EACCES), url)
    if status == 416 or (isinstance(cause, OSError) and "range" in str(cause).lower() and cause.errno == errno.EINVAL):
        return EOFError(f"{url} is shorter than was asked for")
    for kind, number in (
        (FileExistsError, errno.EEXIST),
        (IsADirectoryError, errno.EISDIR),
        (NotADirectoryError, errno.ENOTDIR),
    ):
        if isinstance(cause, kind):
            return kind(number, os.strerror(number), url)
    if "Credential" in name or "Authentication" in name or "DefaultCredentials" in name:
        kind_ = EXTRAS.get(parts(url)[0], "")
        where = CREDENTIALS.get(kind_, "the environment or fsspec's configuration")
        return StoreError(f"no credentials for {parts(url)[1]} were found: set {where}")
    if isinstance(cause, NotImplementedError) or status in (405, 501):
        return StoreError(f"{url} cannot be written: {parts(url)[0]}:// only reads")
    return None


def reason(error: BaseException) -> str:
    """Return an error in one line, with nothing in it that signs a request."""
    return redacted(getattr(error, "strerror", None) or error) or type(error).__name__


def redacted(said: object) -> str:
    """Return text in one line without the queries of URLs, which may be signatures."""
    return " ".join(SIGNED.sub("?…", str(said)).split())
