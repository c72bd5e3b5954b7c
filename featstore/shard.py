"""Write a shard: one HDF5 file that says all of itself. Under a temporary name, then sealed, never changed again."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from .contents import Failure, ShardContents, opened, read_contents
from .errors import InputError
from .filters import options
from .int8 import affine_name
from .layout import FORMAT_VERSION, PREFIX, PREFIX_SUM, Part, ShardHeader
from .packing import PackedSample, pack_sample
from .sealing import discard, publish, storing, temporary_for
from .trailer import append_trailer

__all__ = ["PREFIX", "Failure", "ShardContents", "ShardHeader", "ShardWriter", "opened", "read_contents"]

AXES = {
    3: ("sample", "row", "column", "channel"),
    2: ("sample", "token", "channel"),
    1: ("sample", "scale, offset, norm"),
}
"""Labels of the axes, by how many a sample has."""

DECODE = "scale, offset, norm = split({affine}[n], [{one}, {two}]); norm * (scale * this[n] + offset)"
UNITS = "features: the model's own scale; grid: patches; seconds: s"


class ShardWriter:
    """Writes one shard of up to ``capacity`` samples. Leaving the block without ``seal`` leaves nothing behind.

    ``add``, ``seal`` and entering the block raise StoreError where the disk is full or the folder cannot be written.
    """

    def __init__(self, path: Path, header: ShardHeader, capacity: int, replace: bool = False) -> None:
        """``replace`` is for repair alone, which knows that what bears the name is damaged."""
        self.path, self.header, self.capacity, self.replace = path, header, capacity, replace
        self.image_ids: list[str] = []
        self.sha256s: list[str] = []
        self.checksums: list[list[int]] = []
        self.prefix_checksums: list[int] = []
        self.stats: list[dict[str, float]] = []
        self.failures: list[Failure] = []

    def __enter__(self) -> "ShardWriter":
        self.temporary = temporary_for(self.path)
        try:
            with storing(self.path):
                self.path.parent.mkdir(
                    exist_ok=True
                )  # not its parents: a disk that is gone is not made up for elsewhere
                # The oldest layout that serves: HDF5 1.8, and what is built on it, opens the file.
                self.file = h5py.File(self.temporary, "w", libver=("earliest", "v110"), track_order=False)
                filters = options(self.header.codec)
                for name, part in self.header.parts().items():
                    self.create(name, part, filters if part.filtered else {})
        except BaseException:
            discard(self.temporary)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # After ``seal`` both are done already. On a full disk closing fails as well, and there is nothing left to save.
        with suppress(OSError, RuntimeError):
            self.file.close()
        discard(self.temporary)

    def create(self, name: str, part: Part, filters: Mapping[str, Any]) -> None:
        """Make a data set of one sample a chunk."""
        shape, limits = (self.capacity, *part.shape), (None, *part.shape)
        made = self.file.create_dataset(
            name, shape, part.dtype, chunks=(1, *part.shape), maxshape=limits, track_times=False, **filters
        )
        for dimension, label in enumerate(AXES[len(part.shape)]):
            made.dims[dimension].label = label
        if affine_name(name) in self.header.parts():
            made.attrs["decode"] = DECODE.format(
                affine=affine_name(name), one=self.header.channels, two=2 * self.header.channels
            )

    def add(
        self,
        image_id: str,
        sha256: str,
        maps: Mapping[str, NDArray[np.float16]],
        prefix: NDArray[np.float16] | None,
        stats: Mapping[str, float],
    ) -> None:
        """Append one sample: every variant of the header in its shape, prefix tokens as (T, C) or None where T is 0.

        Raises InputError where a map is missing, of another shape or not float16, or where the shard is full.
        """
        self.append(image_id, sha256, pack_sample(self.header, image_id, maps, prefix), stats)

    def append(self, image_id: str, sha256: str, packed: PackedSample, stats: Mapping[str, float]) -> None:
        """Append one sample packed for this shard's header; raises InputError where the shard is full."""
        row = len(self.image_ids)
        if row == self.capacity:
            raise InputError(f"{image_id} is one more than the {self.capacity} samples this shard was made for")
        with storing(self.path):
            for name, chunk in packed.chunks.items():
                self.file[name].id.write_direct_chunk((row, *[0] * (self.file[name].ndim - 1)), chunk)
        self.image_ids.append(image_id)
        self.sha256s.append(sha256)
        self.checksums.append([packed.checksums[name] for name in self.header.variants])
        if PREFIX in packed.checksums:
            self.prefix_checksums.append(packed.checksums[PREFIX])
        self.stats.append(dict(stats))

    def fail(self, failure: Failure) -> None:
        """Note an image of the plan that has no features."""
        self.failures.append(failure)

    def seal(self) -> ShardContents:
        """Write the tables and the trailer, flush, rename; returns what the shard holds. No sample at all is legal.

        A shard that bears the name already stays, unless ``replace``: then what that one holds is returned.
        """
        count = len(self.image_ids)
        contents = ShardContents(
            self.header,
            tuple(self.image_ids),
            tuple(self.sha256s),
            np.array(self.checksums, "<u8").reshape(count, len(self.header.variants)),
            stat_columns(self.stats),
            tuple(self.failures),
            0,
            np.array(self.prefix_checksums, "<u8") if self.header.prefix_tokens else None,
        )
        with storing(self.path):
            for name in self.header.parts():
                self.file[name].resize(count, axis=0)
            write_tables(self.file, contents)
            self.file.close()
            digest = append_trailer(self.temporary)
            size = self.temporary.stat().st_size
            try:
                publish(self.temporary, self.path, self.replace)
            except FileExistsError:  # by a worker that was taken for dead: what was sealed first is what is listed
                return read_contents(self.path)
        return replace(contents, bytes=size, digest=digest)


def stat_columns(entries: Sequence[Mapping[str, float]]) -> dict[str, NDArray[np.float32]]:
    """Return each statistic as a column, NaN where a sample has none."""
    names = sorted({name for entry in entries for name in entry})
    return {name: np.array([entry.get(name, np.nan) for entry in entries], "<f4") for name in names}


def write_tables(file: h5py.File, contents: ShardContents) -> None:
    """Write all that is not features."""
    header, text = contents.header, h5py.string_dtype("utf-8")
    # Failures are a data set: an attribute holds 64 KiB, which a few hundred of them pass.
    lines = [json.dumps(asdict(failure), sort_keys=True) for failure in contents.failures]
    for name, entries in (("image_id", list(contents.image_ids)), ("failures", lines)):
        file.create_dataset(name, (len(entries),), text, entries, track_times=False)
    file.create_dataset("sha256", data=np.array(contents.sha256s, "S64"), track_times=False)
    file.create_dataset("checksum", data=contents.checksums, track_times=False)
    if contents.prefix_checksums is not None:
        file.create_dataset(PREFIX_SUM, data=contents.prefix_checksums, track_times=False)
    stats = file.create_group("stats")
    for name, values in contents.stats.items():
        stats.create_dataset(name, data=values, track_times=False)
    file.attrs["format"] = "featstore"
    file.attrs["format_version"] = FORMAT_VERSION
    for name in ("dataset", "backbone", "digest", "recipe", "provenance", "store", "codec"):
        file.attrs[name] = getattr(header, name)
    file.attrs["variants"] = json.dumps(list(header.variants))
    file.attrs["grid"] = np.array(header.grid, "<i8")
    if header.fine_grid is not None:
        file.attrs["fine_grid"] = np.array(header.fine_grid, "<i8")
    file.attrs["channels"] = header.channels
    file.attrs["prefix_count"] = header.prefix_tokens
    file.attrs["units"] = UNITS
