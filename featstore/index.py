"""Index a data set: read its source, hash what changed, record a new revision."""

import hashlib
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from . import manifest, sources
from .errors import DecodeError, InputError, RemoteError
from .images import probe
from .masks import probe_mask
from .members import read_bytes, read_status
from .places import as_remote, images_folder, is_url, joined, listed_source, placed, stored_path
from .records import ImageRecord, ObjectRecord, Problem
from .revisions import Head, KnownFiles, head_of, known_files, record, staged_line
from .root import check_name, ensure_root
from .snapshots import keep_snapshots

__all__ = ["IndexReport", "Progress", "index_dataset"]

Progress = Callable[[int, int], None]
THREADS, THREADS_REMOTE = 4, 32
AHEAD = 64
DESCRIBED = ("path", "part", "split", "splits", "label", "mask_path", "instance_path", "depth_path")
Part = list[ImageRecord]
Told = tuple[str, list[Problem], int, int]


@dataclass(frozen=True)
class IndexReport:
    """What indexing found; counts are images. ``notes`` tell of layouts that may have been meant."""

    dataset: str
    layout: str
    source: str
    revision: int
    images: int
    added: int
    changed: int
    removed: int
    hashed: int
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()


def index_dataset(
    root: Path, dataset: str, source: Path | None, layout: str | None = None, progress: Progress | None = None
) -> IndexReport:
    """Index ``source`` as ``dataset`` and record a new revision where anything changed.

    Files, masks included, whose size and modification time are those of the last revision are not read again.
    ``source`` None takes the last one. What cannot be read goes to ``failures``; the rest is indexed. Raises SourceError
    for a folder that is missing or not of the layout, InputError for a bad name, StoreError where the root cannot be written.
    """
    check_name(dataset)
    ensure_root(root)
    before = head_of(root, dataset)
    notes: list[str] = []
    folder, reader = locate(dataset, source, layout, before, notes.append)
    records, problems = split_records(reader.read(folder))
    meaning = reader.meaning(folder)
    with tempfile.NamedTemporaryFile("w", suffix=".ndjson", encoding="utf-8") as staged:
        known = known_files(root, dataset) if before.source == str(folder) else None
        found, hashed = describe(images_folder(folder), records, meaning.mask_coding, known, staged.write, progress)
        staged.flush()
        problems += found
        if not records and not problems:
            raise sources.nothing_found(folder, reader)
        with manifest.writing(root) as connection:
            row = {"source": str(folder), "layout": reader.layout} | asdict(meaning)
            counts = record(connection, dataset, row, before, Path(staged.name), problems)
    keep_snapshots(root, dataset)
    report = IndexReport(dataset, reader.layout, str(folder), **vars(counts), hashed=hashed, problems=tuple(problems))
    return replace(report, notes=tuple(notes))


def locate(
    dataset: str, source: Path | None, layout: str | None, before: Head, tell: Callable[[str], object]
) -> tuple[Path, sources.Source]:
    """Return the folder, or the file, to index and what reads it: unless told otherwise, what read it last time."""
    if source is None:
        layout = layout or before.layout or None
        source = stored_path(before.source) if before.source else (sources.get(layout).home if layout else None)
    if source is None:
        raise InputError(f"{dataset} has not been indexed yet: say where it lies with --source DIR")
    folder = listed_source(source.expanduser().absolute())
    layout = layout or (before.layout if str(folder) == before.source else None)
    return folder, sources.get(layout) if layout else sources.detect(folder, tell)


def split_records(found: Iterable[ImageRecord | Problem]) -> tuple[list[ImageRecord], list[Problem]]:
    """Part images from problems."""
    records: list[ImageRecord] = []
    problems: list[Problem] = []
    for item in found:
        if isinstance(item, Problem):
            problems.append(item)
        else:
            records.append(item)
    return records, problems


def describe(
    folder: Path,
    records: list[ImageRecord],
    coding: str,
    known: KnownFiles | None,
    write: Callable[[str], object],
    progress: Progress | None,
) -> tuple[list[Problem], int]:
    """Read what is new of each image and write its line; returns the problems met, and how many files were read.

    ``coding`` says how masks hold their labels.
    """
    problems: list[Problem] = []
    hashed = done = 0
    remote = as_remote(folder) is not None or any(is_url(one.path) for one in records)
    # Few images a job where reading is slow, many where a million of them need no more than a look at the clock.
    size = 1 if remote else max(1, min(256, len(records) // (4 * THREADS)))
    parts = (records[start : start + size] for start in range(0, len(records), size))
    with ThreadPoolExecutor(THREADS_REMOTE if remote else THREADS) as pool:
        for lines, found, read, count in in_order(pool, parts, lambda part: describe_part(folder, part, coding, known)):
            write(lines)
            problems += found
            hashed += read
            done += count
            if progress:
                progress(done, len(records))
    return problems, hashed


def in_order(pool: ThreadPoolExecutor, parts: Iterable[Part], work: Callable[[Part], Told]) -> Iterator[Told]:
    """Yield what ``work`` makes of each part, in order, a few ahead: the results of a million images are not kept."""
    jobs: deque[Future[Told]] = deque()
    for part in parts:
        jobs.append(pool.submit(work, part))
        if len(jobs) > AHEAD:
            yield jobs.popleft().result()
    while jobs:
        yield jobs.popleft().result()


def describe_part(folder: Path, records: Part, coding: str, known: KnownFiles | None) -> Told:
    """Return the lines of some images, their problems, how many files were read, and how many images these are."""
    lines, problems, hashed = [], [], 0
    for one in records:
        row, found, read = describe_one(folder, one, coding, known)
        problems += found
        hashed += read
        if row is not None:
            lines.append(staged_line(row, map(box_columns, one.objects)))
    return "".join(lines), problems, hashed, len(records)


def box_columns(box: ObjectRecord) -> dict[str, Any]:
    """Return a box's columns."""
    columns = asdict(box)
    return {"class": columns.pop("name"), **columns}


def describe_one(
    folder: Path, record: ImageRecord, coding: str, known: KnownFiles | None
) -> tuple[dict[str, Any] | None, list[Problem], bool]:
    """Return one image's row (None where it cannot be read), its problems, and whether its bytes were read."""
    path = quick(folder, record.path)
    row = {name: getattr(record, name) for name in DESCRIBED} | {"image_id": record.image_id}
    read = False
    try:
        status = read_status(path)
        kept = known.find(record.image_id, record.path, status.st_size, status.st_mtime_ns) if known else None
        if kept is None:
            data = read_bytes(path)
            read = True
            info = probe(data)
            row |= {"sha256": hashlib.sha256(data).hexdigest()}
            row |= {"width": info.width, "height": info.height, "mode": info.mode}
            kept = len(data), info.width, info.height
        row |= {"bytes": kept[0], "mtime_ns": status.st_mtime_ns}
    except RemoteError:
        raise
    except (OSError, DecodeError) as error:
        reason = str(error) if isinstance(error, DecodeError) else os.strerror(error.errno or 0)
        return None, [Problem(record.path, "image", reason, record.image_id)], read
    if not (record.mask_path or record.instance_path):
        return row, [], read
    state = masks_state(folder, record, coding, kept[1:])
    if state is not None and known and known.masks_of(record.image_id) == state:
        return row | {"masks_read": state}, [], read
    problems = list(check_masks(folder, record, coding, row, kept[1:]))
    return row | {"masks_read": None if problems else state}, problems, read


def quick(folder: Path, path: str) -> str | Path:
    """Return a place as text where it is local: objects for the paths of a million images take longer than asking the disk."""
    return joined(str(folder), path) if as_remote(folder) is None else placed(folder, path)


def masks_state(folder: Path, record: ImageRecord, coding: str, size: tuple[int, int]) -> int | None:
    """Return a hash that stays while an image's masks need no reading; None where one cannot be found."""
    told: list[Any] = [coding, *size]
    try:
        for path in (record.mask_path, record.instance_path):
            status = read_status(quick(folder, path)) if path is not None else None
            told += [path, status and (status.st_size, status.st_mtime_ns)]
    except RemoteError:
        raise
    except (OSError, DecodeError):
        return None
    return int.from_bytes(hashlib.blake2b(repr(told).encode(), digest_size=8).digest(), "big", signed=True)


def check_masks(
    folder: Path, record: ImageRecord, coding: str, row: dict[str, Any], size: tuple[int, int]
) -> Iterator[Problem]:
    """Drop from ``row`` each mask that cannot be read or is not of the image's size, and yield why.

    Instances, which no reader here decodes, may be in any colours.
    """
    for column, probed in (("mask_path", partial(probe_mask, coding=coding)), ("instance_path", probe)):
        if row[column] is None:
            continue
        try:
            info = probed(read_bytes(placed(folder, row[column])))
        except RemoteError:
            raise
        except (OSError, DecodeError) as error:
            reason = str(error) if isinstance(error, DecodeError) else os.strerror(error.errno or 0)
        else:
            if (info.width, info.height) == size:
                continue
            own = f"{size[0]}×{size[1]}"
            reason = f"the mask is {info.width}×{info.height} and its image {own}: it is left out"
        yield Problem(row[column], "mask", reason, record.image_id)
        row[column] = None
