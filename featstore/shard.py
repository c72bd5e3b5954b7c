"""A shard: one HDF5 file that says all of itself. Written under a temporary name, sealed, never changed again."""

import json
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from .errors import CorruptError, InputError
from .quantise import STORED, checksum
from .sealing import sealed

__all__ = ["FORMAT_VERSION", "Failure", "ShardContents", "ShardHeader", "ShardWriter", "read_contents"]

FORMAT_VERSION = 1
AXES = ("sample", "row", "column", "channel")
UNITS = "features: the model's own scale; grid: patches; seconds: s"


@dataclass(frozen=True)
class ShardHeader:
    """What a shard says of itself. ``recipe`` and ``provenance`` are JSON texts; ``grid`` is (H, W) [patches]."""

    dataset: str
    backbone: str
    digest: str
    recipe: str
    variants: tuple[str, ...]
    grid: tuple[int, int]
    channels: int
    prefix_tokens: int
    provenance: str


@dataclass(frozen=True)
class Failure:
    """One image of a shard's plan that has no features, with the reason."""

    image_id: str
    path: str
    sha256: str
    step: str
    error: str


@dataclass(frozen=True)
class ShardContents:
    """What a sealed shard holds, features aside. ``checksums`` is (N, variants); each statistic is (N,)."""

    header: ShardHeader
    image_ids: tuple[str, ...]
    sha256s: tuple[str, ...]
    checksums: NDArray[np.uint64]
    stats: dict[str, NDArray[np.float32]]
    failures: tuple[Failure, ...]
    bytes: int


class ShardWriter:
    """Writes one shard of up to ``capacity`` samples. Leaving the block without ``seal`` leaves nothing behind."""

    def __init__(self, path: Path, header: ShardHeader, capacity: int) -> None:
        self.path, self.header, self.capacity = path, header, capacity
        self.image_ids: list[str] = []
        self.sha256s: list[str] = []
        self.checksums: list[list[int]] = []
        self.stats: list[Mapping[str, float]] = []
        self.failures: list[Failure] = []
        self.stack = ExitStack()

    def __enter__(self) -> "ShardWriter":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.stack.__enter__()
        self.temporary = self.stack.enter_context(sealed(self.path))
        self.file = self.stack.enter_context(h5py.File(self.temporary, "w", libver=("earliest", "v110")))
        (height, width), channels = self.header.grid, self.header.channels
        for name in self.header.variants:
            self.create(name, (height, width, channels), AXES)
        if self.header.prefix_tokens:
            self.create("prefix_tokens", (self.header.prefix_tokens, channels), ("sample", "token", "channel"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self.file:
            error = NotSealed()
            kind = NotSealed
        with suppress(NotSealed):
            self.stack.__exit__(kind, error, trace)

    def create(self, name: str, shape: tuple[int, ...], axes: tuple[str, ...]) -> None:
        """Make a float16 data set of one sample a chunk, without filter."""
        whole = (self.capacity, *shape)
        made = self.file.create_dataset(name, whole, STORED, chunks=(1, *shape), maxshape=(None, *shape))
        for dimension, label in enumerate(axes):
            made.dims[dimension].label = label

    def add(
        self,
        image_id: str,
        sha256: str,
        maps: Mapping[str, NDArray[np.float16]],
        prefix: NDArray[np.float16] | None,
        stats: Mapping[str, float],
    ) -> None:
        """Append one sample: every variant of the header as (H, W, C), prefix tokens as (T, C) or None where T is 0.

        Raises InputError where a map is missing or of another shape.
        """
        row = len(self.image_ids)
        shape = (*self.header.grid, self.header.channels)
        for name in self.header.variants:
            if maps[name].shape != shape:
                raise InputError(f"{name} of {image_id} is {maps[name].shape}, this shard holds {shape}")
            data = np.ascontiguousarray(maps[name], dtype=STORED)
            self.file[name].id.write_direct_chunk((row, 0, 0, 0), data.tobytes())
        if self.header.prefix_tokens:
            if prefix is None:
                raise InputError(f"{image_id} has no prefix tokens, this shard holds {self.header.prefix_tokens}")
            data = np.ascontiguousarray(prefix, dtype=STORED)
            self.file["prefix_tokens"].id.write_direct_chunk((row, 0, 0), data.tobytes())
        self.image_ids.append(image_id)
        self.sha256s.append(sha256)
        self.checksums.append([checksum(maps[name]) for name in self.header.variants])
        self.stats.append(dict(stats))

    def fail(self, failure: Failure) -> None:
        """Note an image of the plan that has no features."""
        self.failures.append(failure)

    def seal(self) -> ShardContents:
        """Write the tables, close, flush, rename; returns what the shard holds."""
        count = len(self.image_ids)
        for name in (*self.header.variants, *(["prefix_tokens"] if self.header.prefix_tokens else [])):
            self.file[name].resize(count, axis=0)
        contents = ShardContents(
            self.header,
            tuple(self.image_ids),
            tuple(self.sha256s),
            np.array(self.checksums, np.uint64).reshape(count, len(self.header.variants)),
            self.stat_columns(),
            tuple(self.failures),
            0,
        )
        write_tables(self.file, contents)
        self.stack.close()
        return ShardContents(**{**vars(contents), "bytes": self.path.stat().st_size})

    def stat_columns(self) -> dict[str, NDArray[np.float32]]:
        """Return each statistic as a column, NaN where a sample has none."""
        names = sorted({name for entry in self.stats for name in entry})
        return {name: np.array([entry.get(name, np.nan) for entry in self.stats], np.float32) for name in names}


class NotSealed(Exception):  # noqa: N818 - no error: it only takes the temporary file away
    """Leaves the block of a shard that was not sealed."""


def write_tables(file: h5py.File, contents: ShardContents) -> None:
    """Write all that is not features."""
    text = h5py.string_dtype("utf-8")
    file.create_dataset("image_id", data=list(contents.image_ids), dtype=text, shape=(len(contents.image_ids),))
    file.create_dataset("sha256", data=np.array(contents.sha256s, "S64"))
    file.create_dataset("checksum", data=contents.checksums)
    stats = file.create_group("stats")
    for name, values in contents.stats.items():
        stats.create_dataset(name, data=values)
    header = contents.header
    file.attrs["format"] = "featstore"
    file.attrs["format_version"] = FORMAT_VERSION
    for name in ("dataset", "backbone", "digest", "recipe", "provenance"):
        file.attrs[name] = getattr(header, name)
    file.attrs["variants"] = json.dumps(list(header.variants))
    file.attrs["grid"] = np.array(header.grid, np.int64)
    file.attrs["channels"] = header.channels
    file.attrs["prefix_count"] = header.prefix_tokens
    file.attrs["units"] = UNITS
    file.create_dataset(
        "failures", data=[json.dumps(asdict(f), sort_keys=True) for f in contents.failures], dtype=text,
        shape=(len(contents.failures),),
    )  # fmt: skip


def read_contents(path: Path) -> ShardContents:
    """Read what a sealed shard holds; raises CorruptError where the file is not a whole shard of this format."""
    try:
        with h5py.File(path, "r") as file:
            return parse(file, path)
    except CorruptError:
        raise
    except FileNotFoundError as error:
        raise CorruptError(f"the shard {path} is missing: build again to make it") from error
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CorruptError(f"{path} is not a whole featstore shard: {reason}") from error


def parse(file: h5py.File, path: Path) -> ShardContents:
    """Read the tables of an open shard."""
    attributes: Mapping[str, Any] = file.attrs
    if attributes.get("format") != "featstore":
        raise CorruptError(f"{path} is not a featstore shard")
    if attributes["format_version"] > FORMAT_VERSION:
        raise CorruptError(f"{path} was made by a newer featstore (format {attributes['format_version']}): upgrade")
    height, width = (int(value) for value in attributes["grid"])
    header = ShardHeader(
        dataset=str(attributes["dataset"]),
        backbone=str(attributes["backbone"]),
        digest=str(attributes["digest"]),
        recipe=str(attributes["recipe"]),
        variants=tuple(json.loads(attributes["variants"])),
        grid=(height, width),
        channels=int(attributes["channels"]),
        prefix_tokens=int(attributes["prefix_count"]),
        provenance=str(attributes["provenance"]),
    )
    image_ids = tuple(file["image_id"].asstr()[:].tolist())
    for name in header.variants:
        if file[name].shape != (len(image_ids), height, width, header.channels) or file[name].dtype != STORED:
            raise CorruptError(
                f"{path}: {name} is not ({len(image_ids)}, {height}, {width}, {header.channels}) float16"
            )
    return ShardContents(
        header,
        image_ids,
        tuple(value.decode() for value in file["sha256"][:].tolist()),
        file["checksum"][:],
        {name: values[:] for name, values in file["stats"].items()},
        tuple(Failure(**json.loads(entry)) for entry in file["failures"].asstr()[:].tolist()),
        path.stat().st_size,
    )
