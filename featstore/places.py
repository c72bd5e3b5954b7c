"""Where things lie: a local path is pathlib's, a URL of any fsspec file system is a RemotePath of the same interface."""

import os
import re
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlsplit

from .errors import InputError
from .listing import Listing, status_of
from .remote import RemotePath
from .transport import READ_ONLY

__all__ = [
    "as_remote",
    "images_folder",
    "is_url",
    "joined",
    "listed",
    "listed_source",
    "path_of",
    "placed",
    "stored_path",
]

CONTAINERS = (".parquet", ".tar", ".mat")
SOURCES = (".txt", ".csv", ".tsv", *CONTAINERS)
"""How files end that can be a data set's source themselves."""

WHERE = (
    "credentials belong in the environment (AWS_ACCESS_KEY_ID …), the protocol's own files or fsspec's configuration"
)


def is_url(text: str) -> bool:
    """Whether a text is a URL and not a local path."""
    return "://" in text and re.match(r"[A-Za-z][A-Za-z0-9+.:-]+://", text) is not None


def path_of(path: str | os.PathLike[str] | RemotePath) -> Path:
    """Return what a person's ``path`` names: a pathlib.Path, or behind a URL what has its interface.

    Raises InputError for a URL that holds credentials or a query: what is given here is written into manifests and logs.
    """
    if isinstance(path, RemotePath):
        return cast(Path, path)
    text = os.fspath(path)
    if text.lower().startswith("file://"):
        return Path(unquote(urlsplit(text).path))
    return stored_path(check_url(text) if is_url(text) else text)


def stored_path(text: str) -> Path:
    """Return what a path of the manifest names, whose last part may hold any character."""
    return cast(Path, RemotePath(text)) if is_url(text) else Path(text)


def images_folder(source: str | Path) -> Path:
    """Return the folder that the paths of a data set's images begin in: its source, or the one that the source file is in."""
    place = stored_path(source) if isinstance(source, str) else source
    return place.parent if place.name.lower().endswith(SOURCES) and not place.is_dir() else place


def joined(folder: str, path: str) -> str:
    """Return where a path of the manifest lies: below ``folder``, unless it is absolute or a URL."""
    return path if "://" in path and is_url(path) else os.path.join(folder, path)  # noqa: PTH118


def placed(folder: Path, path: str) -> Path:
    """Return where a path of the manifest lies; below a remote folder it answers from that folder's listing."""
    remote = as_remote(folder)
    if remote is None or path.startswith("/") or ("://" in path and is_url(path)):
        return stored_path(joined(str(folder), path))
    return folder / path


def check_url(text: str) -> str:
    """Return a URL, its protocol in small letters; raises InputError without repeating what may be secret."""
    protocol, _, rest = text.partition("://")
    host = rest.partition("/")[0]
    user, at, server = host.rpartition("@")
    shown = f"{protocol}://{server}"
    if "::" in protocol:
        raise InputError(
            f"chained URLs ({protocol}://…) are not taken: give the place itself, the cache is featstore's own"
        )
    if ":" in user or (at and protocol.lower() not in ("ssh", "sftp")):
        raise InputError(f"the URL of {shown} holds credentials, which would be kept in the manifest: {WHERE}")
    if "?" in rest and protocol.lower() in ("http", "https", "s3", "s3a", "gs", "gcs", "abfs", "az"):
        raise InputError(f"the URL of {shown} has a query, which may be a signature: leave it out; {WHERE}")
    if not rest.strip("/"):
        raise InputError(f"{shown} names no place: give protocol://host-or-bucket/folder")
    return f"{protocol.lower()}://{rest}"


def as_remote(path: object) -> RemotePath | None:
    """Return ``path`` where it is remote, None where it is local."""
    return path if isinstance(path, RemotePath) else None


def listed(path: Path) -> Path:
    """Return the same place; a remote one with a listing of all below it, from which it answers what is there."""
    remote = as_remote(path)
    return path if remote is None else cast(Path, remote.listed())


def listed_source(source: Path) -> Path:
    """Return a data set's source with a listing; one that is a file with that of its folder, where servers list folders.

    A file of images on another server has a listing of its own alone, so that it is not asked about at every image.
    """
    remote = as_remote(source)
    if remote is None or images_folder(source) == source:
        return listed(source)
    if remote.protocol not in READ_ONLY:
        return listed(source.parent) / source.name
    if remote.name.lower().endswith(CONTAINERS):
        alone = Listing(remote.parent.url, {remote.url: status_of(remote.info())})
        return cast(Path, RemotePath(remote.url, alone))
    return source
