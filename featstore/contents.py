"""What a sealed shard holds, read back from its tables."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from .errors import CorruptError, StoreError
from .filters import NONE
from .layout import FLOAT16, FORMAT_VERSION, PREFIX_SUM, ShardHeader
from .ranges import hdf5_source
from .trailer import read_trailer

__all__ = ["Failure", "ShardContents", "opened", "read_contents"]


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
    """What a sealed shard holds, features aside. ``checksums`` is (N, variants); each statistic is (N,).

    ``prefix_checksums`` (N,) is None without prefix tokens, ``digest`` is the trailer's; format 1 has neither.
    """

    header: ShardHeader
    image_ids: tuple[str, ...]
    sha256s: tuple[str, ...]
    checksums: NDArray[np.uint64]
    stats: dict[str, NDArray[np.float32]]
    failures: tuple[Failure, ...]
    bytes: int
    prefix_checksums: NDArray[np.uint64] | None = None
    digest: str | None = None


def read_contents(path: Path, sealed: bool = True) -> ShardContents:
    """Read what a sealed shard holds; raises CorruptError where the file is not a whole shard of this format.

    ``sealed`` False takes one whose trailer is damaged, too.
    """
    with opened(path) as file:
        return parse(file, path, sealed)


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open a sealed shard with HDF5.

    Whatever goes wrong with it, there or in the block, is raised as CorruptError.
    """
    try:
        # With h5py's own options: HDF5 refuses a file that the same process has open already with others.
        with hdf5_source(path) as source, h5py.File(source, "r") as file:
            if file.attrs.get("format") != "featstore":
                raise CorruptError(f"{path} is not a featstore shard")
            number = int(file.attrs["format_version"])
            if number > FORMAT_VERSION:
                raise CorruptError(f"{path} was made by a newer featstore (format {number}): upgrade featstore")
            yield file
    except (CorruptError, StoreError):
        raise
    except FileNotFoundError as error:
        raise CorruptError(f"the shard {path} is missing: build again to make it") from error
    except (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise CorruptError(f"{path} is not a whole featstore shard: {' '.join(str(error).split())}") from error


def parse(file: h5py.File, path: Path, sealed: bool) -> ShardContents:
    """Read the tables of an open shard and see that they fit each other."""
    attributes: Mapping[str, Any] = file.attrs
    header = ShardHeader(
        **{name: str(attributes[name]) for name in ("dataset", "backbone", "digest", "recipe", "provenance")},
        variants=tuple(json.loads(attributes["variants"])),
        grid=pair(attributes["grid"]),
        channels=int(attributes["channels"]),
        prefix_tokens=int(attributes["prefix_count"]),
        fine_grid=pair(attributes["fine_grid"]) if "fine_grid" in attributes else None,
        store=str(attributes.get("store", FLOAT16)),  # a shard made before there was a choice says nothing of it
        codec=str(attributes.get("codec", NONE)),
    )
    image_ids = tuple(file["image_id"].asstr()[:].tolist())
    count, stats = len(image_ids), {name: values[:] for name, values in file["stats"].items()}
    shapes: dict[str, tuple[int, ...]] = {name: (count, *part.shape) for name, part in header.parts().items()}
    types: dict[str, np.dtype[Any]] = {name: np.dtype(part.dtype) for name, part in header.parts().items()}
    types |= {"sha256": np.dtype("S64"), "checksum": np.dtype("<u8")}
    shapes |= {"sha256": (count,), "checksum": (count, len(header.variants))}
    whole = int(attributes["format_version"]) > 1
    if whole and header.prefix_tokens:
        types[PREFIX_SUM], shapes[PREFIX_SUM] = np.dtype("<u8"), (count,)
    for name, kind in types.items():
        if file[name].shape != shapes[name] or file[name].dtype != kind:
            raise CorruptError(f"{path}: {name} is {file[name].shape} {file[name].dtype}, not {shapes[name]} {kind}")
    return ShardContents(
        header,
        image_ids,
        tuple(value.decode("ascii") for value in file["sha256"][:].tolist()),
        file["checksum"][:],
        stats,
        tuple(Failure(**json.loads(entry)) for entry in file["failures"].asstr()[:].tolist()),
        path.stat().st_size,
        file[PREFIX_SUM][:] if PREFIX_SUM in types else None,
        read_trailer(path) if whole and sealed else None,
    )


def pair(values: Sequence[int]) -> tuple[int, int]:
    """Return an attribute that holds two numbers; raises ValueError where it holds more or fewer."""
    height, width = (int(value) for value in values)
    return height, width
