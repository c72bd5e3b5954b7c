"""Export a version: choose, claim the folder, write part by part, say that it is whole."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from featstore.compute import VARIANTS
from featstore.errors import InputError

from .folder import Folder
from .formats import Format, LeftOut, Part, Task, make_format
from .source import DTYPES, PREFIX, Source, Wanted, open_source

__all__ = ["ExportReport", "ExportRequest", "export_version"]

EXPORT_VERSION = 1
AXES = {"last": ("height", "width", "channel"), "first": ("channel", "height", "width")}


@dataclass(frozen=True)
class ExportRequest:
    """What an export is asked for. ``per_file`` None takes the format's own number of images a file."""

    wanted: Wanted
    format: str
    output: Path
    per_file: int | None = None
    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class ExportReport:
    """What an export did; counts are images, ``bytes`` are of the arrays.

    ``present`` were there from before; of ``without``, chosen too, the version does not store all variants asked for.
    """

    version: str
    format: str
    output: str
    arrays: dict[str, list[int]]
    dtype: str
    images: int
    written: int
    present: int
    without: int
    bytes: int
    left_out: tuple[LeftOut, ...]
    note: str
    seconds: float


def export_version(
    root: Path,
    request: ExportRequest,
    started: Callable[[int], None] = lambda count: None,
    advanced: Callable[[int], None] = lambda count: None,
    dry_run: bool = False,
) -> ExportReport:
    """Write samples of a version in a format that others read.

    ``started`` is told how many images there are to write, ``advanced`` of those written. Killed and called again with
    ``resume``, it goes on after the last file that is whole and ends with the same bytes. Raises InputError where the folder
    or the request does not do, StoreError where the disk does not, CorruptError where the store is damaged, and what
    ``open_source`` raises.
    """
    began = time.monotonic()
    request = checked(request)
    source = open_source(root, request.wanted, ("raw", "clean") if request.format == "dvt" else VARIANTS)
    folder = Folder(request.output.expanduser().absolute())
    about = describe(source, request)
    form = make_format(request.format, Task(source, folder, request.per_file, about))
    about |= {"owns": list(form.owns), "read": form.note}
    finished = False
    if not dry_run:
        finished = folder.claim(about, form.owns, request.resume, request.overwrite)
    count = 0 if finished else sum(part.stop - part.start for part in missing(form, folder, dry_run))
    if not finished and not dry_run:
        folder.require_room(count * source.sample_bytes)
        started(count)
        run(form, missing(form, folder), advanced)
        form.finish()
        folder.end()
    total = len(source) - len(form.left_out)
    return ExportReport(
        version=source.version.name,
        format=request.format,
        output=str(folder.path),
        arrays={name: list(shape) for name, shape in source.shapes.items()},
        dtype=source.dtype.name,
        images=total,
        written=count,
        present=total - count,
        without=source.without,
        bytes=count * source.sample_bytes,
        left_out=tuple(form.left_out),
        note=form.note,
        seconds=time.monotonic() - began,
    )


def checked(request: ExportRequest) -> ExportRequest:
    """Return a request with its format's own dtype filled in; raises InputError for one that makes no sense."""
    if request.resume and request.overwrite:
        raise InputError("--resume goes on with an export and --overwrite starts anew: give one of them")
    dtype = request.wanted.dtype or ("float32" if request.format == "dvt" else DTYPES[0])
    if dtype not in DTYPES or request.wanted.channels not in AXES:
        raise InputError(f"dtype is one of {', '.join(DTYPES)}, channels one of {', '.join(AXES)}")
    if "://" in os.fspath(request.output) or ":/" in os.fspath(request.output):
        raise InputError(f"{request.output} is a URL: exports are written to local folders")
    return replace(request, wanted=replace(request.wanted, dtype=dtype))


def describe(source: Source, request: ExportRequest) -> dict[str, Any]:
    """Return all that decides an export's bytes, with recipe and provenance of what is exported."""
    wanted, chosen = source.wanted, source.version
    axes = {name: list(AXES[wanted.channels]) if name != PREFIX else ["token", "channel"] for name in source.shapes}
    return {
        "featstore_export": EXPORT_VERSION,
        "format": request.format,
        "per_file": request.per_file,
        "version": chosen.name,
        "dataset": chosen.dataset,
        "backbone": chosen.backbone,
        "method": chosen.method,
        "digest": chosen.digest,
        "images": len(source),
        "selection": source.fingerprint,
        "where": wanted.where,
        "limit": wanted.limit,
        "arrays": {name: {"shape": list(shape), "axes": axes[name]} for name, shape in source.shapes.items()},
        "dtype": wanted.dtype,
        "channels": wanted.channels,
        "recipe": source.recipe,
        "provenance": source.provenance,
        "source": source.source,
        "software": f"featstore-dvt {software()}",
    }


def software() -> str:
    """Return this program's version."""
    try:
        return version("featstore-dvt")
    except PackageNotFoundError:
        return "unknown"


def missing(form: Format, folder: Folder, everything: bool = False) -> Iterator[Part]:
    """Yield the parts that are not there: names are given to whole files alone, and the folder is this same export's."""
    for part in form.parts():
        if everything or not all((folder.path / name).exists() for name in part.names):
            yield part


def run(form: Format, todo: Iterable[Part], advanced: Callable[[int], None]) -> None:
    """Write every part, a few at a time; the first error ends it."""
    if form.threads == 1:
        for part in todo:
            form.write(part)
            advanced(part.stop - part.start)
        return
    with ThreadPoolExecutor(form.threads) as pool:
        for part, job in ahead(pool, form, todo):
            job.result()
            advanced(part.stop - part.start)


def ahead(pool: ThreadPoolExecutor, form: Format, todo: Iterable[Part]) -> Iterator[tuple[Part, "Future[None]"]]:
    """Yield parts with their jobs in order, no more than twice the threads under way."""
    jobs: deque[tuple[Part, Future[None]]] = deque()
    try:
        for part in todo:
            jobs.append((part, pool.submit(form.write, part)))
            if len(jobs) > 2 * form.threads:
                yield jobs.popleft()
        while jobs:
            yield jobs.popleft()
    finally:
        for _, job in jobs:
            job.cancel()
