"""webdataset: tar files of samples in order, ``<key>.<variant>.npy`` and ``<key>.json``."""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from featstore.errors import CorruptError

from .formats import LeftOut, Part, ReadTask, Task, chunks, own_export
from .matching import Entry
from .naming import file_names
from .source import PREFIX, Sample

__all__ = ["Reader", "Writer"]

FILE_BYTES = 512 * 10**6
NAME = "features-{:06d}.tar"
INDEX = "index.json"


class Writer:
    """Writes ``features-000000.tar`` …, and the index that ``wids`` wants."""

    threads = 1
    owns = ("features-*.tar", INDEX)
    left_out: Sequence[LeftOut] = ()

    def __init__(self, task: Task) -> None:
        self.task, self.source = task, task.source
        self.size = task.per_file or max(1, FILE_BYTES // self.source.sample_bytes)
        # A sample's key ends at the first dot of its name.
        self.keys = file_names(self.source.image_ids, self.source.paths, dots=False)
        last = -(-len(self.source) // self.size) - 1
        span = f"{{000000..{last:06d}}}" if last else "000000"
        self.note = f"webdataset.WebDataset('{task.folder.path}/features-{span}.tar').decode()"

    def parts(self) -> Iterator[Part]:
        """Yield every tar file."""
        for number, start, stop in chunks(len(self.source), self.size):
            yield Part(start, stop, (NAME.format(number),))

    def write(self, part: Part) -> None:
        """Write one tar file, sample by sample."""
        with (
            self.task.folder.put(part.names[0]) as temporary,
            tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar,
        ):
            tar.copybufsize = 2**22  # type: ignore[attr-defined]
            for sample in self.source.samples(part.start, part.stop):
                for ending, data in self.members(sample):
                    member = tarfile.TarInfo(f"{self.keys[sample.number]}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))

    def members(self, sample: Sample) -> Iterator[tuple[str, bytes]]:
        """Yield the files of one sample by their endings."""
        for name, values in sample.arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, values, version=(1, 0))
            yield f"{name}.npy", buffer.getbuffer()  # type: ignore[misc]
        about: dict[str, Any] = {key: self.task.about[key] for key in ("version", "digest", "method")}
        yield "json", json.dumps(sample.facts | about, ensure_ascii=False, sort_keys=True).encode()

    def finish(self) -> None:
        """Write the index of the tar files."""
        shards = [{"url": part.names[0], "nsamples": part.stop - part.start} for part in self.parts()]
        about = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": self.task.about["version"]}
        self.task.folder.write(INDEX, json.dumps(about | {"shardlist": shards}, indent=1) + "\n")


class Reader:
    """Reads an export of ours: the tar files are gone through once, for where each member lies."""

    channels: str | None

    def __init__(self, task: ReadTask) -> None:
        about = own_export(task, "webdataset")
        self.tars = sorted(task.folder.glob("features-*.tar"))
        self.variants, self.channels = tuple(name for name in about["arrays"] if name != PREFIX), about["channels"]

    def entries(self) -> Sequence[Entry]:
        """Return every sample of every tar file; raises CorruptError where one is not whole."""
        return [entry for path in self.tars for entry in entries_of(path)]

    def load(self, place: tuple[Path, dict[str, tuple[int, int]]], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Read one sample's members."""
        path, members = place
        with path.open("rb") as file:
            return {name: member(file, *members[name]) for name in names if name in members}


def entries_of(path: Path) -> Iterator[Entry]:
    """Yield the samples of one tar file: their place is the tar file, and offset and size of each array."""
    try:
        with tarfile.open(path) as tar:
            members: dict[str, tuple[int, int]] = {}
            for info in tar:
                ending = info.name.rpartition("/")[2].partition(".")[2]
                if ending != "json":
                    members[ending.removesuffix(".npy")] = info.offset_data, info.size
                    continue
                file = tar.extractfile(info)
                facts = json.loads(file.read() if file else b"")
                yield Entry(facts["image_id"], (path, members), facts["image_id"], facts["sha256"])
                members = {}
    except (tarfile.TarError, ValueError, KeyError) as error:
        raise CorruptError(f"{path} is no whole tar file of an export ({error}): export again") from error


def member(file: BinaryIO, offset: int, size: int) -> NDArray[Any]:
    """Read one .npy member of a tar file."""
    file.seek(offset)
    values: NDArray[Any] = np.load(io.BytesIO(file.read(size)), allow_pickle=False)
    return values
