"""Other ways to keep features, each as its own documentation would: what bench_read.py holds featstore against.

A peer writes samples (N, 37, 37, 384) float16 below a folder and reads one by index, opening what it needs in the process
that reads. None compresses: real features shrink by 15 %, and every one of these would pay for it in reading.
"""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

SHARD = 128  # samples a file, where a format has several in one
Samples = NDArray[np.float16]


class Peer(Dataset[Tensor]):
    """A map-style data set of (37, 37, 384) tensors."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self.opened: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"opened": None}

    def __len__(self) -> int:
        return self.count

    def write(self, samples: Samples) -> None:
        raise NotImplementedError

    def open(self) -> Any:
        raise NotImplementedError

    def get(self, index: int) -> NDArray[np.float16]:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Tensor:
        if self.opened is None:
            self.opened = self.open()
        return torch.from_numpy(self.get(index))


class Memmap(Peer):
    """``np.load(mmap_mode="r")`` on one .npy: hands out views, which collating copies once; ``own`` copies at once."""

    def write(self, samples: Samples) -> None:
        np.save(self.folder / "all.npy", samples)

    def open(self) -> Any:
        return np.load(self.folder / "all.npy", mmap_mode="r")

    def get(self, index: int) -> NDArray[np.float16]:
        return self.opened[index]


class Npy(Peer):
    """A .npy file a sample."""

    def write(self, samples: Samples) -> None:
        for index, sample in enumerate(samples):
            np.save(self.folder / f"{index:06d}.npy", sample)

    def open(self) -> Any:
        return True

    def get(self, index: int) -> NDArray[np.float16]:
        return np.load(self.folder / f"{index:06d}.npy")


class Safetensors(Peer):
    """Files of 128 tensors, opened once with ``safe_open``."""

    def write(self, samples: Samples) -> None:
        from safetensors.numpy import save_file

        for start in range(0, len(samples), SHARD):
            part = {f"{start + i}": sample for i, sample in enumerate(samples[start : start + SHARD])}
            save_file(part, self.folder / f"{start // SHARD:05d}.safetensors")

    def open(self) -> Any:
        from safetensors import safe_open

        return [safe_open(path, framework="pt") for path in sorted(self.folder.glob("*.safetensors"))]

    def __getitem__(self, index: int) -> Tensor:
        if self.opened is None:
            self.opened = self.open()
        return self.opened[index // SHARD].get_tensor(f"{index}")  # type: ignore[no-any-return]


class PlainHdf5(Peer):
    """The same samples in HDF5 files of one sample a chunk, read with h5py."""

    def write(self, samples: Samples) -> None:
        import h5py

        for start in range(0, len(samples), SHARD):
            with h5py.File(self.folder / f"{start // SHARD:05d}.h5", "w") as file:
                part = samples[start : start + SHARD]
                file.create_dataset("clean", data=part, chunks=(1, *part.shape[1:]))

    def open(self) -> Any:
        import h5py

        return [h5py.File(path, "r")["clean"] for path in sorted(self.folder.glob("*.h5"))]

    def get(self, index: int) -> NDArray[np.float16]:
        return self.opened[index // SHARD][index % SHARD]  # type: ignore[no-any-return]


class Zarr(Peer):
    """Zarr v3, one array, one sample a chunk, no codec besides bytes."""

    def write(self, samples: Samples) -> None:
        import zarr

        options: Any = {"chunks": (1, *samples.shape[1:]), "compressors": None, "zarr_format": 3}
        made = zarr.create_array(self.folder / "all.zarr", shape=samples.shape, dtype=samples.dtype, **options)
        made[:] = samples

    def open(self) -> Any:
        import zarr

        return zarr.open_array(self.folder / "all.zarr", mode="r")

    def get(self, index: int) -> NDArray[np.float16]:
        return self.opened[index]


class Lance(Peer):
    """A Lance table with a column of fixed-size lists, one row taken at a time."""

    def write(self, samples: Samples) -> None:
        import lance
        import pyarrow as pa

        size = samples[0].size
        schema = pa.schema([("clean", pa.list_(pa.float16(), size))])

        def batches() -> Iterator[pa.RecordBatch]:
            for start in range(0, len(samples), SHARD):
                flat = pa.array(samples[start : start + SHARD].reshape(-1))
                yield pa.record_batch([pa.FixedSizeListArray.from_arrays(flat, size)], schema=schema)

        lance.write_dataset(batches(), str(self.folder / "all.lance"), schema=schema)
        self.shape = samples.shape[1:]

    def open(self) -> Any:
        import lance

        return lance.dataset(str(self.folder / "all.lance"))

    def get(self, index: int) -> NDArray[np.float16]:
        column = self.opened.take([index], columns=["clean"])["clean"].combine_chunks()
        return column.flatten().to_numpy().reshape(self.shape)


class HuggingFace(Peer):
    """🤗 datasets: Arrow files written by ``from_generator``-style shards, float16 lists of a fixed length, format numpy."""

    def write(self, samples: Samples) -> None:
        import datasets
        import pyarrow as pa

        size = samples[0].size
        features = datasets.Features({"clean": datasets.Sequence(datasets.Value("float16"), length=size)})
        table = pa.table(
            {"clean": pa.FixedSizeListArray.from_arrays(pa.array(samples.reshape(-1)), size)},
            schema=features.arrow_schema,
        )
        datasets.Dataset(table).save_to_disk(self.folder / "all")
        self.shape = samples.shape[1:]

    def open(self) -> Any:
        import datasets

        return datasets.load_from_disk(str(self.folder / "all")).with_format("numpy")

    def get(self, index: int) -> NDArray[np.float16]:
        return self.opened[index]["clean"].reshape(self.shape)  # type: ignore[no-any-return]


class WebDataset:
    """Tar files of .npy, a stream: read from beginning to end, shards in random order, a buffer of 64 to shuffle."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count

    def write(self, samples: Samples) -> None:
        for start in range(0, len(samples), SHARD):
            with tarfile.open(self.folder / f"{start // SHARD:05d}.tar", "w") as file:
                for index in range(start, min(start + SHARD, len(samples))):
                    data = io.BytesIO()
                    np.save(data, samples[index])
                    entry = tarfile.TarInfo(f"{index:06d}.clean.npy")
                    entry.size = len(data.getvalue())
                    file.addfile(entry, io.BytesIO(data.getvalue()))

    def loader(self, batch: int, workers: int) -> Any:
        import webdataset

        urls = [str(path) for path in sorted(self.folder.glob("*.tar"))]
        stream = webdataset.WebDataset(urls, shardshuffle=len(urls), nodesplitter=webdataset.split_by_node)
        stream = stream.shuffle(64).decode().to_tuple("clean.npy").map(first)
        return webdataset.WebLoader(stream, batch_size=batch, num_workers=workers, persistent_workers=workers > 0)


def first(sample: tuple[NDArray[np.float16]]) -> Tensor:
    """Return the features of a decoded sample."""
    return torch.from_numpy(sample[0])


RANDOM: dict[str, type[Peer]] = {
    "np.memmap": Memmap,
    ".npy a file": Npy,
    "safetensors": Safetensors,
    "h5py": PlainHdf5,
    "Zarr v3": Zarr,
    "Lance": Lance,
    "HF datasets": HuggingFace,
}
