"""Memory that a worker and its parent share: what arrives is right, and stays so while anything refers to it."""

import copy
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, default_collate

from featstore import FeatureDataset, collate
from featstore.parcels import LIMIT, MAPPED, Batch, take
from featstore.samples import Sample

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="Linux")


class Numbers(IterableDataset[dict[str, Any]]):
    """Batches that tell their number everywhere, from slots that have been used before."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number in range(self.count):
            large = take((300, 7, 5), torch.float16).fill_(number)
            other = take((4, 3), torch.bfloat16).fill_(number)
            lists = [{"boxes": torch.full((number % 3, 4), number)}, "text"]
            yield Batch(
                large=large.permute(0, 2, 1),
                part=large[3:9, 1:4],
                other=other,
                number=number,
                lists=lists,
                few=torch.tensor([number]),
            )


def check(batch: dict[str, Any], number: int) -> None:
    assert batch["number"] == number
    assert type(batch) is dict
    assert batch["large"].shape == (300, 5, 7)
    assert batch["large"].stride() == (35, 1, 5)
    assert batch["part"].shape == (6, 3, 5)
    assert all(bool((batch[key] == number).all()) for key in ("large", "part", "other", "few"))
    assert batch["lists"][0]["boxes"].tolist() == [[number] * 4] * (number % 3)
    assert batch["lists"][1] == "text"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_batches_arrive_whole_and_slots_are_used_again(method: str) -> None:
    loader = DataLoader(Numbers(40), batch_size=None, num_workers=1, multiprocessing_context=method)
    before, addresses = set(MAPPED), set()
    for number, batch in enumerate(loader):
        check(batch, number)
        addresses.add(batch["large"].data_ptr())
    assert number == 39
    assert len(addresses) <= LIMIT
    assert len(set(MAPPED) - before) <= 2 * LIMIT


def test_what_is_kept_is_never_written_over() -> None:
    """More batches held than there are slots; of some only a view of a view, or a numpy array."""
    batches, views, arrays = [], [], []
    for number, batch in enumerate(DataLoader(Numbers(60), batch_size=None, num_workers=1)):
        if number % 3 == 0:
            batches.append((number, batch))
        elif number % 3 == 1:
            views.append((number, batch["part"][2:4, 0].T))
        else:
            arrays.append((number, batch["large"].numpy()[::2]))
    for number, batch in batches:
        check(batch, number)
    assert all(bool((view == number).all()) for number, view in views)
    assert all(bool((array == number).all()) for number, array in arrays)


def test_memory_of_workers_that_ended_is_let_go() -> None:
    for _ in range(3):
        for batch in DataLoader(Numbers(5), batch_size=None, num_workers=1):
            check(batch, batch["number"])
        del batch
    assert len({key[0] for key in MAPPED}) <= 2


def test_other_pickles_and_copies_are_plain_values() -> None:
    batch = next(iter(Numbers(1)))
    for again in (pickle.loads(pickle.dumps(batch)), copy.deepcopy(batch)):
        batch["large"].fill_(0)
        assert torch.equal(again["large"], torch.zeros(300, 5, 7).half())
        assert again["large"].data_ptr() != batch["large"].data_ptr()


def pair(samples: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """Make something else of a batch, as users do."""
    batch = collate(samples)
    return batch["raw"], batch["clean"]


def doubled(samples: list[dict[str, Any]]) -> dict[str, Any]:
    for sample in samples:
        sample["raw"] = sample["raw"] * 2
    return default_collate(samples)  # type: ignore[no-any-return]


def test_a_collate_of_the_users_own_gets_what_it_expects(readable: Path) -> None:
    data = FeatureDataset(readable, "pets", backbone="fake", variants=("raw", "clean"))
    expected = torch.stack([data[i]["raw"] for i in range(10)])
    for epoch in range(3):
        loader = DataLoader(data, batch_size=2, num_workers=1, collate_fn=pair)
        assert torch.equal(torch.cat([raw for raw, _ in loader]), expected), epoch
    both = DataLoader(data, batch_size=2, num_workers=1, collate_fn=doubled)
    assert torch.equal(torch.cat([batch["raw"] for batch in both]), expected * 2)


def test_blocks_are_handed_on_only_where_they_are_the_batch(readable: Path) -> None:
    data = FeatureDataset(readable, "pets", backbone="fake", variants=("raw",), dtype=torch.float32)
    samples = data.__getitems__([7, 2, 5])
    assert all(isinstance(sample, Sample) for sample in samples)
    expected = torch.stack([data[i]["raw"] for i in (7, 2, 5)])
    whole = collate(samples)
    assert torch.equal(whole["raw"], expected)
    assert whole["raw"].data_ptr() == samples[0]["raw"].data_ptr()
    turned = collate(samples[::-1])
    assert torch.equal(turned["raw"], expected.flip(0))
    assert turned["raw"].data_ptr() != samples[2]["raw"].data_ptr()
    assert torch.equal(collate(samples[:2])["raw"], expected[:2])
    samples[1]["raw"] = torch.zeros_like(samples[1]["raw"])
    assert torch.equal(collate(samples)["raw"][1], torch.zeros_like(expected[1]))
    batch = next(iter(DataLoader(Subset(data, [9, 0]), batch_size=2, num_workers=1)))
    assert torch.equal(batch["raw"], torch.stack([data[9]["raw"], data[0]["raw"]]))
    assert np.array_equal(data.batch(["dogs/004.png"])["raw"][0], data["dogs/004.png"]["raw"])
