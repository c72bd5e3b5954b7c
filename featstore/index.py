"""Index a data set: read its source, hash what changed, record a new revision."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import manifest, sources
from .errors import DecodeError, InputError, RemoteError
from .images import probe
from .masks import probe_mask
from .places import as_remote, listed, stored_path
from .records import ImageRecord, Problem
from .revisions import COLUMNS, Previous, Row, previous, record
from .root import check_name, ensure_root

__all__ = ["IndexReport", "Progress", "index_dataset"]

Progress = Callable[[int, int], None]
THREADS, THREADS_REMOTE = 4, 32


@dataclass(frozen=True)
class IndexReport:
    """What indexing found; counts are images."""

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


def index_dataset(
    root: Path, dataset: str, source: Path | None, layout: str | None = None, progress: Progress | None = None
) -> IndexReport:
    """Index ``source`` as ``dataset`` and record a new revision where anything changed.

    Files whose size and modification time are those of the last revision are not read again. ``source`` None takes the
    last one. What cannot be read goes to ``failures``; the rest is indexed. Raises SourceError for a folder that is
    missing or not of the layout, InputError for a bad name, StoreError where the root cannot be written.
    """
    check_name(dataset)
    ensure_root(root)
    before = previous(root, dataset)
    folder, reader = locate(dataset, source, layout, before)
    records, problems = split_records(reader.read(folder))
    rows, found, hashed = describe(folder, records, before, progress)
    problems += found
    if not rows and not problems:
        raise sources.nothing_found(folder, reader)
    with manifest.writing(root) as connection:
        known = connection.execute("SELECT revision FROM datasets WHERE dataset = ?", [dataset]).fetchone()
        if (known[0] if known else 0) != before.revision:
            raise InputError(f"{dataset} was indexed by another process meanwhile: run the command again")
        counts = record(connection, dataset, str(folder), reader.layout, before, rows, problems)
    return IndexReport(dataset, reader.layout, str(folder), *counts, hashed=hashed, problems=tuple(problems))


def locate(dataset: str, source: Path | None, layout: str | None, before: Previous) -> tuple[Path, sources.Source]:
    """Return the folder to index and what reads it."""
    if source is None:
        layout = layout or before.layout or None
        source = stored_path(before.source) if before.source else (sources.get(layout).home if layout else None)
    if source is None:
        raise InputError(f"{dataset} has not been indexed yet: say where it lies with --source DIR")
    folder = listed(source.expanduser().absolute())
    return folder, sources.get(layout) if layout else sources.detect(folder)


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
    folder: Path, records: list[ImageRecord], before: Previous, progress: Progress | None
) -> tuple[dict[str, Row], list[Problem], int]:
    """Read what is new of each image: (row, objects) by image_id, the problems met, and how many files were hashed."""
    trusted = before.images if before.source == str(folder) else {}
    rows: dict[str, Row] = {}
    problems: list[Problem] = []
    hashed = 0
    with ThreadPoolExecutor(THREADS if as_remote(folder) is None else THREADS_REMOTE) as pool:
        jobs = pool.map(lambda record: describe_one(folder, record, trusted.get(record.image_id)), records)
        for done, (record, (row, found, read)) in enumerate(zip(records, jobs, strict=True), 1):
            problems += found
            hashed += read
            if row is not None:
                boxes = [asdict(box) for box in record.objects]
                rows[record.image_id] = row, [{"class": box.pop("name"), **box} for box in boxes]
            if progress:
                progress(done, len(records))
    return rows, problems, hashed


def describe_one(
    folder: Path, record: ImageRecord, known: dict[str, Any] | None
) -> tuple[dict[str, Any] | None, list[Problem], bool]:
    """Return one image's row (None where it cannot be read), its problems, and whether its bytes were read."""
    path = folder / record.path
    row = {name: getattr(record, name, None) for name in COLUMNS} | {"splits": list(record.splits)}
    read = False
    try:
        status = path.stat()
        row |= {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
        if known and all(known[key] == row[key] for key in ("path", "bytes", "mtime_ns")):
            row |= {key: known[key] for key in ("sha256", "width", "height", "mode")}
        else:
            data = path.read_bytes()
            read = True
            info = probe(data)
            row |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            row |= {"width": info.width, "height": info.height, "mode": info.mode}
    except RemoteError:
        raise
    except (OSError, DecodeError) as error:
        reason = str(error) if isinstance(error, DecodeError) else os.strerror(error.errno or 0)
        return None, [Problem(record.path, "image", reason, record.image_id)], read
    problems = list(check_masks(folder, record, row))
    return row, problems, read


def check_masks(folder: Path, record: ImageRecord, row: dict[str, Any]) -> Iterator[Problem]:
    """Drop from ``row`` each mask that cannot be read or is not of the image's size, and yield why."""
    for column in ("mask_path", "instance_path"):
        if row[column] is None:
            continue
        try:
            info = probe_mask((folder / row[column]).read_bytes())
        except RemoteError:
            raise
        except (OSError, DecodeError) as error:
            reason = str(error) if isinstance(error, DecodeError) else os.strerror(error.errno or 0)
        else:
            if (info.width, info.height) == (row["width"], row["height"]):
                continue
            size = f"{row['width']}×{row['height']}"
            reason = f"the mask is {info.width}×{info.height} and its image {size}: it is left out"
        yield Problem(row[column], "mask", reason, record.image_id)
        row[column] = None
