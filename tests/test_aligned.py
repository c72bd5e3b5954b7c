"""Versions side by side, images by name and by SQL."""

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

import featstore
from featstore import FeatureDataset
from featstore.errors import InputError, NotInStoreError, QueryError

BOTH = {"a": "pets/fake/v1", "b": "pets/other"}


def test_several_versions_are_aligned_by_image(readable: Path) -> None:
    data = FeatureDataset(readable, versions=BOTH, variants={"a": ("raw", "clean"), "b": ("clean",)}, prefix=True)
    one, other = (
        FeatureDataset(readable, "pets", backbone=name, variants=("raw", "clean")) for name in ("fake", "other")
    )
    assert len(data) == 7
    assert data.left_out == {"a": 3, "b": 0}
    assert data.image_ids == other.image_ids
    batch = next(iter(DataLoader(data, batch_size=7)))
    assert set(batch) == {"image_id", "a/raw", "a/clean", "a/prefix", "b/clean", "b/prefix"}
    for place, name in enumerate(data.image_ids):
        item = data[name]
        assert item["image_id"] == name
        for key, expected in (
            ("a/raw", one[name]["raw"]),
            ("a/clean", one[name]["clean"]),
            ("b/clean", other[name]["clean"]),
        ):
            assert torch.equal(item[key], expected)
            assert torch.equal(batch[key][place], expected)
        torch.testing.assert_close(item["b/clean"].float(), 3 * item["a/clean"].float(), atol=0.02, rtol=2e-3)


def test_open_takes_several_versions(readable: Path) -> None:
    data = featstore.open(BOTH, readable, variants="clean")
    assert data.variants == ("a/clean", "b/clean")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"versions": BOTH, "backbone": "fake"}, "not both"),
        ({"versions": {"a": "pets/fake", "b": "voc/fake"}}, "one data set"),
        ({"versions": {"a": "pets"}}, "names no version"),
        ({"versions": BOTH, "variants": {"a": ("raw",)}}, "variants are given for a"),
        ({"dataset": "pets"}, "name a backbone"),
        ({"dataset": "pets", "backbone": "fake", "image_ids": []}, "image_ids is empty"),
        ({"dataset": "pets", "backbone": "fake", "image_ids": ["dogs/000.png"] * 2}, "twice"),
    ],
)
def test_what_does_not_go_together_is_refused(readable: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        FeatureDataset(readable, **options)  # type: ignore[arg-type]


def test_images_listed_come_in_the_order_listed(readable: Path) -> None:
    names = ["dogs/008.png", "cats/001.png", "dogs/002.png"]
    data = FeatureDataset(readable, "pets", backbone="fake", image_ids=names, image=True)
    assert data.image_ids == names
    everything = FeatureDataset(readable, "pets", backbone="fake", image=True)
    for place, name in enumerate(names):
        assert data.index(name) == place
        assert torch.equal(data[place]["clean"], everything[name]["clean"])
        assert torch.equal(data[name]["image"], everything[name]["image"])
    with pytest.raises(NotInStoreError, match=r"'cats/999\.png' of the 2 images listed"):
        FeatureDataset(readable, "pets", backbone="fake", image_ids=["dogs/008.png", "cats/999.png"])
    for missing in ("cats/999.png", "a", "zz", "dogs/004.png"):
        with pytest.raises(NotInStoreError, match=missing):
            data[missing]


@pytest.mark.parametrize(
    ("where", "stems"),
    [
        ("image_id IN (SELECT image_id FROM objects WHERE class = 'dog' AND difficult)", {1, 7}),
        ("EXISTS (SELECT 1 FROM objects o WHERE o.image_id = stored.image_id AND xmax = 33)", {3, 9}),
        ("SELECT image_id FROM objects WHERE difficult", {1, 7}),
        ("WITH d AS (SELECT * FROM objects WHERE xmax = 33) SELECT image_id FROM d -- these", {3, 9}),
        ("sha256 IN (SELECT sha256 FROM features) AND split = 'val'", {1, 4, 7, 10}),
    ],
)
def test_where_may_ask_other_tables(readable: Path, where: str, stems: set[int]) -> None:
    data = FeatureDataset(readable, "voc", backbone="fake", where=where)
    stems_of = [f"{n:06d}" for n in range(6)] + [f"2012_{n:06d}" for n in range(6)]
    assert set(data.image_ids) == {stems_of[n] for n in stems}


def test_a_query_of_another_column_says_so(readable: Path) -> None:
    with pytest.raises(QueryError, match="columns"):
        FeatureDataset(readable, "voc", backbone="fake", where="SELECT image_id, class FROM objects")
