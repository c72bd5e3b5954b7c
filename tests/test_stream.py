"""Streams and the threaded loader: every sample once, the same batches whatever the workers, going on where they were."""

import pickle
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import featstore
from featstore import FeatureDataset, FeatureStream, loader
from featstore.errors import CorruptError, InputError
from featstore.loading import Loader


@pytest.fixture
def data(readable: Path) -> FeatureDataset:
    return FeatureDataset(readable, "pets", backbone="fake", variants=("raw", "clean"))


def names(batches: Any) -> list[list[str]]:
    return [batch["image_id"] for batch in batches]


def check_values(data: FeatureDataset, batch: dict[str, Any]) -> None:
    for place, name in enumerate(batch["image_id"]):
        assert torch.equal(batch["raw"][place], data[name]["raw"])
        assert torch.equal(batch["clean"][place], data[name]["clean"])


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("shuffle", [True, "shards"])
def test_workers_give_the_same_batches_in_the_same_order(
    data: FeatureDataset, shuffle: bool | str, method: str
) -> None:
    stream = FeatureStream(data, 3, shuffle=shuffle, open_shards=2, seed=7)
    workers = DataLoader(
        stream, batch_size=None, num_workers=2, persistent_workers=True, multiprocessing_context=method
    )
    orders = []
    for epoch in range(2):
        stream.set_epoch(epoch)
        alone = list(stream)
        assert len(alone) == len(stream) == len(workers) == 4
        shared = list(workers)
        threads = loader(data, 3, shuffle=shuffle, open_shards=2, seed=7)
        threads.set_epoch(epoch)
        assert names(shared) == names(alone) == names(threads)
        for batch in (*alone, *shared):
            check_values(data, batch)
        assert Counter(name for batch in shared for name in batch["image_id"]) == Counter(data.image_ids)
        orders.append(names(shared))
    assert orders[0] != orders[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_single_samples_are_shared_out_too(data: FeatureDataset, workers: int) -> None:
    stream = FeatureStream(data)
    assert len(stream) == 10
    batches = list(DataLoader(stream, batch_size=4, num_workers=workers))
    assert Counter(name for batch in batches for name in batch["image_id"]) == Counter(data.image_ids)
    for batch in batches:
        check_values(data, batch)


@pytest.mark.parametrize(("uneven", "counts"), [("keep", [1, 2]), ("pad", [2, 2]), ("drop", [1, 1])])
def test_ranks_and_workers_together_read_everything_once(data: FeatureDataset, uneven: str, counts: list[int]) -> None:
    seen: Counter[str] = Counter()
    for rank in range(4):
        stream = FeatureStream(data, 2, rank=rank, world_size=4, uneven=uneven)
        batches = list(DataLoader(stream, batch_size=None, num_workers=2))
        assert len(batches) == len(stream)
        assert len(batches) in counts
        seen.update(name for batch in batches for name in batch["image_id"])
    assert {"keep": seen == Counter(data.image_ids), "pad": sum(seen.values()) == 12, "drop": len(seen) == 8}[uneven]
    assert uneven == "drop" or set(seen) == set(data.image_ids)


def test_a_state_goes_on_where_it_was_taken(data: FeatureDataset) -> None:
    def fresh() -> Loader:
        made = loader(data, 2, shuffle="shards", workers=2)
        made.set_epoch(3)
        return made

    whole = names(fresh())
    first = fresh()
    iterator = iter(first)
    before = [next(iterator)["image_id"] for _ in range(2)]
    state = pickle.loads(pickle.dumps(first.state_dict()))
    iterator.close()
    again = loader(data, 2, shuffle="shards", workers=0)
    again.load_state_dict(state)
    for epoch in range(state["epoch"], 4):
        again.set_epoch(epoch)
        assert before + names(again) == whole
    assert names(again) == whole  # the next epoch is a whole one
    stream = FeatureStream(data, 2)
    stream.load_state_dict(state)
    assert before + names(DataLoader(stream, batch_size=None, num_workers=2)) == whole
    with pytest.raises(InputError, match="seed=0, this stream has 1"):
        FeatureStream(data, 2, seed=1).load_state_dict(state)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_the_loader_reads_ahead_in_threads_that_end(data: FeatureDataset, workers: int) -> None:
    threads = threading.active_count()
    batches = loader(data, 3, workers=workers, drop_last=True)
    assert len(batches) == 3
    for batch in batches:
        check_values(data, batch)
        break
    held = list(batches)  # every batch kept: none is written over
    for batch in held:
        check_values(data, batch)
    assert names(held) == [data.image_ids[i : i + 3] for i in (0, 3, 6)]
    assert threading.active_count() == threads


def test_memory_comes_back_only_when_nothing_refers_to_it(readable: Path) -> None:
    data = FeatureDataset(readable, "pets", backbone="fake", variants="raw")
    batches = loader(data, 5, workers=0)
    addresses, kept = [], []
    for _ in range(4):
        for batch in batches:
            addresses.append(batch["raw"].data_ptr())
            kept.append((batch["image_id"][2], batch["raw"][2].numpy()))  # a view of a view holds the block
            del batch
    assert len(set(addresses)) == 8
    for name, values in kept:
        assert (values == data[name]["raw"].numpy()).all()
    del kept, values
    assert all(batch["raw"].data_ptr() in addresses for batch in batches)


def test_an_error_is_raised_at_its_batch(readable: Path, data: FeatureDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = data.stored[0].pool[2]
    monkeypatch.setattr(reader, "read_into", lambda *_: (_ for _ in ()).throw(CorruptError("damaged")))
    batches = iter(loader(data, 2, workers=2))
    assert [next(batches)["image_id"] for _ in range(3)] == [data.image_ids[i : i + 2] for i in (0, 2, 4)]
    with pytest.raises(CorruptError, match="damaged"):
        next(batches)


def test_another_device_gets_every_tensor(readable: Path) -> None:
    """The meta device takes tensors as a GPU does, and keeps only their shapes."""
    data = FeatureDataset(readable, "voc", backbone="fake", objects=True, image=True)
    for batch in loader(data, 4, device="meta"):
        tensors = [batch["clean"], batch["image"], *(boxes for each in batch["objects"] for boxes in each.values())]
        assert {tensor.device.type for tensor in tensors} == {"meta"}
        assert batch["clean"].shape[1:] == (8, 4, 5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without CUDA")
def test_cuda_where_there_is_none_is_said(data: FeatureDataset) -> None:
    with pytest.raises(InputError, match="finds no CUDA device"):
        loader(data, device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_on_a_gpu_are_those_of_the_cpu(data: FeatureDataset, workers: int) -> None:
    here = list(loader(data, 3, workers=0))
    for _ in range(3):
        for expected, batch in zip(here, loader(data, 3, workers=workers, device="cuda"), strict=True):
            assert batch["image_id"] == expected["image_id"]
            assert batch["raw"].is_cuda
            torch.cuda._sleep(
                1_000_000
            )  # what the caller computes runs late: the next copy must not write over this one
            assert torch.equal(batch["raw"].cpu(), expected["raw"])


def test_ranks_come_from_torch_distributed(data: FeatureDataset, tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        assert FeatureStream(data).order.world_size == 1
    finally:
        torch.distributed.destroy_process_group()
    with pytest.raises(InputError, match="neither"):
        FeatureStream(data, rank=1)


def test_featstore_collate_is_what_dataloader_does(data: FeatureDataset) -> None:
    one = next(iter(DataLoader(data, batch_size=4)))
    other = next(iter(DataLoader(data, batch_size=4, collate_fn=featstore.collate)))
    assert one.keys() == other.keys()
    assert torch.equal(one["raw"], other["raw"])
