"""webdataset: tar files of samples in order, ``<key>.<variant>.npy`` and ``<key>.json``."""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .formats import LeftOut, Part, Task, chunks
from .naming import file_names
from .source import Sample

__all__ = ["Writer"]

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
