"""Pairs to train on: which version they come from, who is held out, in which order they come."""

import shutil
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import FakeDecomposer, make_folder
from tinystore import rows, stored

from featstore.build import build_version
from featstore.errors import InputError, NotInStoreError
from featstore.index import index_dataset
from featstore.pairs import PairSet, StepOrder, open_pairs
from featstore.plan import Request


class OtherMethod(FakeDecomposer):
    """Features of another method than stage 1."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.method = method

    def recipe(self) -> dict[str, object]:
        return super().recipe() | {"method": {"name": self.method}}


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of twelve images with one stage-1 version, for tests that only read it."""
    folder = tmp_path_factory.mktemp("still")
    index_dataset(folder / "store", "pets", make_folder(folder / "pets", 12))
    build_version(folder / "store", Request("pets", "fake"), FakeDecomposer())
    return folder / "store"


@pytest.fixture
def root(still: Path, tmp_path: Path) -> Path:
    """A copy of it and of its images, the test's own."""
    shutil.copytree(still.parent, tmp_path, dirs_exist_ok=True)
    index_dataset(tmp_path / "store", "pets", tmp_path / "pets")
    return tmp_path / "store"


def add_version(root: Path, decomposer: FakeDecomposer, *variants: str) -> str:
    return build_version(root, Request("pets", "fake", variants=variants), decomposer).version


def open_(root: Path, version: str | None = None, where: str | None = None, heldout: float = 0.25) -> PairSet:
    return open_pairs(root, "pets", "fake", version, where, heldout)


def sides(pairs: PairSet) -> dict[str, str]:
    """Return 'train' or 'heldout' by SHA-256."""
    found = dict.fromkeys(pairs.shas(pairs.train), "train")
    assert not found.keys() & set(pairs.shas(pairs.heldout))
    return found | dict.fromkeys(pairs.shas(pairs.heldout), "heldout")


@pytest.mark.parametrize(("images", "batch"), [(10, 5), (7, 3), (3, 8), (1, 2)])
def test_every_epoch_has_every_image_once(images: int, batch: int) -> None:
    steps = 6 * images // batch + 1
    taken = [place for step in StepOrder(images, batch, steps) for place in step]
    assert len(taken) == steps * batch
    epochs = [taken[start : start + images] for start in range(0, len(taken) - images + 1, images)]
    assert len(epochs) >= 3
    assert all(sorted(epoch) == list(range(images)) for epoch in epochs)


def test_a_run_that_goes_on_takes_the_tail_of_one_that_never_stopped() -> None:
    whole = list(StepOrder(7, 3, 20, seed=4))
    assert len(whole) == len(StepOrder(7, 3, 20)) == 20
    for start in (1, 2, 7, 19, 20):
        rest = StepOrder(7, 3, 20, start, seed=4)
        assert list(rest) == whole[start:]
        assert list(rest) == whole[start:]  # and so it is when it is gone through again
        assert len(rest) == 20 - start


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_the_shares_of_all_processes_are_the_batch(world: int) -> None:
    whole = list(StepOrder(8, 6, 9, seed=1))
    shares = [list(StepOrder(8, 6, 9, 0, 1, rank, world)) for rank in range(world)]
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        assert {len(part) for part in parts} == {6 // world}
        assert sorted(chain.from_iterable(parts)) == sorted(batch)


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(InputError, match="batches of 6 cannot be shared by 4 processes"):
        StepOrder(8, 6, 9, world=4)
    with pytest.raises(InputError, match="no image to train on"):
        StepOrder(0, 6, 9)


def test_orders_differ_from_epoch_to_epoch_and_from_seed_to_seed() -> None:
    def epochs(seed: int) -> list[list[int]]:
        return list(StepOrder(16, 16, 5, seed=seed))

    distinct = {tuple(epoch) for seed in (0, 1, 2) for epoch in epochs(seed)}
    assert len(distinct) == 15
    assert epochs(1) == epochs(1)


def test_the_newest_stage_1_version_gives_the_pairs_whatever_is_newer(root: Path) -> None:
    assert add_version(root, FakeDecomposer(scale=2.0)) == "v2"
    assert add_version(root, OtherMethod("raw"), "raw") == "v3"
    assert add_version(root, OtherMethod("stage2")) == "v4"
    assert add_version(root, FakeDecomposer(scale=3.0), "clean") == "v5"
    assert open_(root).version.name == "pets/fake/v2"
    assert open_(root, "v1").version.name == "pets/fake/v1"
    with pytest.raises(NotInStoreError, match="v5 does not store raw, clean, only clean"):
        open_(root, "v5")
    for version, method in (("v3", "raw"), ("v4", "stage2")):
        with pytest.raises(
            InputError, match=f"pets/fake/{version} is made by {method}: pairs .* come from stage1"
        ) as told:
            open_(root, version)
        assert "\n" not in str(told.value)


def test_where_there_is_no_stage_1_version_the_command_that_makes_one_is_told(root: Path) -> None:
    with pytest.raises(NotInStoreError, match=r"\(none is built\): featstore build pets --backbone x --method stage1"):
        open_pairs(root, "pets", "x", None, None, 0.1)
    shutil.rmtree(root)
    index_dataset(root, "pets", root.parent / "pets")
    add_version(root, OtherMethod("raw"), "raw")
    with pytest.raises(NotInStoreError, match=r"pets/fake/v1 \(raw\).*featstore build pets --backbone fake --method"):
        open_(root)


def test_an_image_never_changes_sides(root: Path) -> None:
    first = sides(open_(root))
    assert 1 < list(first.values()).count("heldout") < 12  # so that none is there only because one must be
    make_folder(root.parent / "pets", 40, seed=3)  # other pictures under the old names, too
    make_folder(root.parent / "pets" / "more", 12)  # the old ones under other names
    index_dataset(root, "pets", None)
    add_version(root, FakeDecomposer())
    second = sides(open_(root))
    assert first.items() <= second.items()
    assert len(second) == 52
    counts = [len(open_(root, heldout=share).heldout) for share in (0.0, 0.1, 0.5, 0.9)]
    assert counts[0] == 1
    for count, share in zip(counts[1:], (0.1, 0.5, 0.9), strict=True):  # four standard deviations
        assert abs(count - 52 * share) < 4 * np.sqrt(52 * share * (1 - share))
    chosen = [set(open_(root, heldout=share).heldout) for share in (0.0, 0.1, 0.5, 0.9)]
    assert all(fewer < more for fewer, more in pairwise(chosen))


def test_one_at_least_is_on_either_side(still: Path) -> None:
    where = "image_id IN ('dogs/000.png', 'cats/001.png')"
    for share in (0.0, 0.3, 0.9):
        pairs = open_(still, where=where, heldout=share)
        assert (len(pairs.train), len(pairs.heldout)) == (1, 1)


def test_the_same_bytes_under_two_names_are_one_image(root: Path) -> None:
    alone = open_(root, heldout=0.0)
    for place in (*alone.heldout, alone.train[0]):  # the one held out because one must be, and one to train on
        name = alone.data.image_ids[place]
        shutil.copy(root.parent / "pets" / name, root.parent / "pets" / f"{name}.copy.png")
    index_dataset(root, "pets", None)
    pairs = open_(root, heldout=0.0)
    assert len(pairs.data) == 14
    assert (len(pairs.train), len(pairs.heldout)) == (11, 1)
    assert sides(pairs) == sides(alone)
    assert sum(len(raw) for raw, _ in pairs.every(5)) == 12


def test_too_few_images_are_told(root: Path) -> None:
    one = "image_id = 'cats/001.png'"
    with pytest.raises(InputError, match="holds 1 image of these: training needs two"):
        open_(root, where=one)
    shutil.copy(root.parent / "pets" / "cats" / "001.png", root.parent / "pets" / "cats" / "copy.png")
    index_dataset(root, "pets", None)
    with pytest.raises(InputError, match="holds 1 image of these: training needs two"):
        open_(root, where=f"{one} OR image_id = 'cats/copy.png'")
    with pytest.raises(NotInStoreError, match="no stored image"):
        open_(root, where="width > 1000")


def test_where_chooses_images(still: Path) -> None:
    pairs = open_(still, where="label = 'cats'")
    cats = {row[0] for row in rows(still, "SELECT sha256 FROM images WHERE label = 'cats'")}
    assert set(sides(pairs)) == cats


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_what_the_shards_hold(still: Path, workers: int) -> None:
    pairs = open_(still)
    files = stored(still, "v1", "raw", "clean")
    names = pairs.data.image_ids
    order = StepOrder(len(pairs.train), 4, 5, start=2, seed=9)
    batches = list(pairs.batches(order, workers))
    assert len(batches) == 3
    for chosen, (raw, clean) in zip(order, batches, strict=True):
        assert raw.dtype == clean.dtype == torch.float16
        for name, found in (("raw", raw), ("clean", clean)):
            expected = [files[names[pairs.train[place]]][name] for place in chosen]
            np.testing.assert_array_equal(found.numpy(), np.stack(expected))
    for loader, places in ((pairs.unseen(2), pairs.heldout), (pairs.every(5), range(12))):
        raw, clean = (torch.cat(parts).numpy() for parts in zip(*loader, strict=True))
        np.testing.assert_array_equal(raw, np.stack([files[names[place]]["raw"] for place in places]))
        np.testing.assert_array_equal(clean, np.stack([files[names[place]]["clean"] for place in places]))
