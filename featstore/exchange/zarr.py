"""zarr: one Zarr v3 group, an array (N, H, W, C) a variant, a sample a chunk, chunks packed in shards."""

import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featstore.sealing import flush, storing

from .formats import LeftOut, Part, ReadTask, Task, chunks, own_export, require_package
from .matching import Entry
from .source import PREFIX

__all__ = ["Reader", "Writer"]

SHARD_BYTES = 64 * 10**6
"""A shard is made in memory, all arrays of it at once."""

GROUP, BEGUN = "features.zarr", ".features.zarr"
FACTS = ("image_id", "sha256", "split", "label", "path")
DIMENSIONS = {"last": ("image", "height", "width", "channel"), "first": ("image", "channel", "height", "width")}


class Writer:
    """Writes ``features.zarr``; until it is whole the group has another name, as what it lacks would be read as zeros."""

    note = "zarr.open_group('features.zarr', mode='r')['<variant>'][i]; ['image_id'][i] names it"
    threads = 1
    owns = (GROUP, BEGUN)
    left_out: Sequence[LeftOut] = ()

    def __init__(self, task: Task) -> None:
        self.zarr = require_package("zarr")
        self.task, self.source = task, task.source
        self.size = task.per_file or max(1, min(len(self.source), SHARD_BYTES // self.source.sample_bytes))

    def parts(self) -> Iterator[Part]:
        """Yield every shard; none where the group has its name already."""
        if (self.task.folder.path / GROUP).exists():
            return
        for number, start, stop in chunks(len(self.source), self.size):
            names = [f"{name}/c/{number}" + "/0" * len(shape) for name, shape in self.source.shapes.items()]
            yield Part(start, stop, tuple(f"{BEGUN}/{name}" for name in names))

    @cached_property
    def group(self) -> Any:
        """The group with its arrays; those of a run that was stopped are opened as they are."""
        path = self.task.folder.path / BEGUN
        with storing(path):
            for leftover in path.rglob("*.partial"):
                leftover.unlink()
            group = self.zarr.open_group(str(path), mode="a", zarr_format=3)
            group.attrs.put(self.task.about)
            for name, shape in self.source.shapes.items():
                if name not in group:
                    self.create(group, name, shape)
        return group

    def create(self, group: Any, name: str, shape: tuple[int, ...]) -> None:
        """Make one array."""
        dimensions = DIMENSIONS[self.source.wanted.channels] if name != PREFIX else ("image", "token", "channel")
        group.create_array(
            name,
            shape=(len(self.source), *shape),
            dtype=self.source.dtype,
            chunks=(1, *shape),
            shards=(self.size, *shape) if self.size > 1 else None,
            compressors=None,
            fill_value=0,
            dimension_names=dimensions,
            config={"write_empty_chunks": True},  # a shard's file says that it was written
        )

    def write(self, part: Part) -> None:
        """Write one shard of every array."""
        count = part.stop - part.start
        held = {name: np.empty((count, *shape), self.source.dtype) for name, shape in self.source.shapes.items()}
        for row, sample in enumerate(self.source.samples(part.start, part.stop)):
            for name, values in sample.arrays.items():
                held[name][row] = values
        with storing(self.task.folder.path / GROUP):
            for (name, values), file in zip(held.items(), part.names, strict=True):
                self.group[name][part.start : part.stop] = values
                flush(self.task.folder.path / file)

    def finish(self) -> None:
        """Write what the manifest tells of every image, gather the metadata in one place, and give the group its name."""
        folder = self.task.folder
        if (folder.path / GROUP).exists():
            return
        facts = [self.source.facts(number) for number in range(len(self.source))]
        with storing(folder.path / GROUP), warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # strings and gathered metadata: both are wide-spread, neither is in the v3 core
            for name in FACTS:
                values = np.array([fact[name] or "" for fact in facts], dtype=np.dtypes.StringDType())
                array = self.group.create_array(
                    name, shape=values.shape, dtype=str, chunks=values.shape, overwrite=True, dimension_names=("image",)
                )
                array[:] = values
            self.zarr.consolidate_metadata(str(folder.path / BEGUN))
        folder.move(BEGUN, GROUP)


class Reader:
    """Reads an export of ours."""

    def __init__(self, task: ReadTask) -> None:
        about = own_export(task, "zarr")
        self.group = require_package("zarr").open_group(str(task.folder / GROUP), mode="r")
        self.kinds, self.channels = tuple(about["arrays"]), about["channels"]
        self.variants = tuple(name for name in self.kinds if name != PREFIX)

    def entries(self) -> Sequence[Entry]:
        """Return every image of the group."""
        pairs = zip(self.group["image_id"][:], self.group["sha256"][:], strict=True)
        return [Entry(str(name), row, str(name), str(sha256)) for row, (name, sha256) in enumerate(pairs)]

    def load(self, place: int, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Read one image's chunks."""
        return {name: np.asarray(self.group[name][place]) for name in names if name in self.kinds}
