"""Denoisers in the manifest: how they are numbered, found and asked for, also where the manifest is of an older schema."""

import json
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeDecomposer, make_folder
from older import make_older
from tinystore import rows

from featstore import manifest
from featstore.build import build_version
from featstore.denoisers import find_denoiser, list_denoisers, newest_denoiser, register_denoiser
from featstore.errors import NotInStoreError
from featstore.index import index_dataset
from featstore.plan import Request

FEATURES = {"id": "vit", "input": [64, 64], "mean": [0.5, 0.25, 0.125]}


def add(
    root: Path,
    dataset: str,
    run: str,
    digest: str,
    backbone: str = "vit",
    features: dict[str, Any] | None = None,
    **more: float,
) -> int:
    """List a denoiser of which everything is known; returns its number."""
    path = f"{dataset}/{backbone}/denoisers/{run}/denoiser.safetensors"
    row: dict[str, Any] = {"dataset": dataset, "backbone": backbone, "digest": digest, "run": run, "path": path}
    row |= {"trained_on": "ab" * 32, "images": 2, "heldout_images": 1, "steps": 5, "provenance": "{}"}
    row |= {"recipe": json.dumps({"backbone": features or FEATURES}), "mse": 0.5, "cosine": float("nan")} | more
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).touch()
    return register_denoiser(root, row, ["s1", "s2"], ["s3"])[0]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with two data sets and no denoiser."""
    with manifest.writing(tmp_path) as connection:
        for name in ("pets", "voc"):
            row = {"dataset": name, "layout": "folder", "source": "/", "revision": 1}
            manifest.insert(connection, "datasets", [row])
    return tmp_path


def test_numbers_count_within_data_set_and_backbone(root: Path) -> None:
    assert [add(root, "pets", "r1", "aaaa1"), add(root, "pets", "r2", "bbbb2")] == [1, 2]
    assert [add(root, "voc", "r3", "cccc3"), add(root, "pets", "r4", "dddd4", backbone="mae")] == [1, 1]
    assert add(root, "pets", "r5", "eeee5") == 3
    names = {one.name for one in list_denoisers(root)}
    assert names == {"pets/vit/d1", "pets/vit/d2", "voc/vit/d1", "pets/mae/d1", "pets/vit/d3"}
    assert rows(root, "SELECT mse, cosine FROM denoisers WHERE run = 'r1'") == [(0.5, None)]


def test_a_run_keeps_its_number_and_stays_as_old_as_it_is(root: Path) -> None:
    add(root, "pets", "r1", "aaaa1")
    add(root, "pets", "r2", "bbbb2")
    before = rows(root, "SELECT * FROM denoisers ORDER BY number")
    assert add(root, "pets", "r1", "aaaa1") == 1
    assert rows(root, "SELECT * FROM denoisers ORDER BY number") == before
    found = newest_denoiser(root, FEATURES, "pets")
    assert found is not None
    assert found.name == "pets/vit/d2"
    assert add(root, "pets", "r1", "ffff6") == 1  # the same run came to something else, as on another machine
    assert rows(root, "SELECT number, digest FROM denoisers ORDER BY 1") == [(1, "ffff6"), (2, "bbbb2")]
    found = newest_denoiser(root, FEATURES, "pets")
    assert found is not None
    assert found.name == "pets/vit/d1"


def test_its_images_are_listed_once(root: Path) -> None:
    add(root, "pets", "r1", "aaaa1")
    add(root, "pets", "r1", "ffff6")
    add(root, "voc", "r2", "bbbb2")
    found = rows(root, "SELECT run, sha256, part FROM denoiser_images ORDER BY 1, 2")
    images = [("s1", "train"), ("s2", "train"), ("s3", "heldout")]
    assert found == [(run, *image) for run in ("r1", "r2") for image in images]


def test_it_is_found_by_number_scope_and_digest(root: Path) -> None:
    with pytest.raises(NotInStoreError, match=r"'d1' is neither .*: none is trained yet: featstore train NAME"):
        find_denoiser(root, "d1")
    add(root, "pets", "r1", "aaaa1111")
    add(root, "pets", "r2", "aaaa2222")
    add(root, "voc", "r3", "bbbb3333")
    add(root, "voc", "r4", "d100cccc", backbone="mae")
    for name, meant in {
        "d2": "pets/vit/d2",
        "pets/d1": "pets/vit/d1",
        "pets/vit/d1": "pets/vit/d1",
        "mae/d1": "voc/mae/d1",
        "voc/vit/bbbb": "voc/vit/d1",
        "AAAA2": "pets/vit/d2",
        "d100": "voc/mae/d1",
    }.items():
        assert find_denoiser(root, name).name == meant
    for name, fits in {
        "d1": "pets/vit/d1, voc/vit/d1, voc/mae/d1",
        "aaaa": "pets/vit/d1, pets/vit/d2",
        "vit/d1": "pets/vit/d1, voc/vit/d1",
    }.items():
        with pytest.raises(NotInStoreError, match=f"'{name}' means several; there are: {fits}$"):
            find_denoiser(root, name)
    for name in ("d9", "aaa", "voc/aaaa1", "pets/mae/d1", "nobody/d2", ""):
        with pytest.raises(NotInStoreError, match=r"neither a file nor .* pets/vit/d1, pets/vit/d2, voc/vit/d1, voc/m"):
            find_denoiser(root, name)


def test_two_runs_that_came_to_the_same_are_not_several(root: Path) -> None:
    add(root, "pets", "r1", "aaaa1111")
    add(root, "voc", "r2", "aaaa1111")
    assert find_denoiser(root, "aaaa").digest == "aaaa1111"


def test_the_newest_is_one_for_these_very_features_and_there(root: Path) -> None:
    def newest(dataset: str, features: dict[str, Any]) -> str | None:
        found = newest_denoiser(root, features, dataset)
        return found and found.name

    assert newest("pets", FEATURES) is None
    add(root, "voc", "r1", "aaaa1")
    assert newest("pets", FEATURES) == "voc/vit/d1"  # of another data set, where there is none of its own
    add(root, "pets", "r2", "bbbb2")
    add(root, "pets", "r3", "cccc3", features=FEATURES | {"input": [32, 32]})
    add(root, "voc", "r4", "dddd4")
    assert newest("pets", FEATURES) == "pets/vit/d1"
    assert newest("voc", FEATURES) == "voc/vit/d2"
    assert newest("pets", FEATURES | {"input": [32, 32]}) == "pets/vit/d2"
    assert newest("pets", FEATURES | {"mean": [0.5, 0.25, 0.126]}) is None
    add(root, "pets", "r5", "eeee5", cosine=0.8, raw_cosine=0.9)  # worse than raw on held-out images
    assert newest("pets", FEATURES) == "pets/vit/d1"
    add(root, "pets", "r6", "ffff6", cosine=0.95, raw_cosine=0.9)
    assert newest("pets", FEATURES) == "pets/vit/d4"
    (root / "pets/vit/denoisers/r6/denoiser.safetensors").unlink()
    (root / "pets/vit/denoisers/r2/denoiser.safetensors").unlink()
    assert newest("pets", FEATURES) == "voc/vit/d2"


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A store as a featstore of schema 3 left it, with one version."""
    index_dataset(tmp_path / "store", "pets", make_folder(tmp_path / "pets", 3))
    build_version(tmp_path / "store", Request("pets", "fake"), FakeDecomposer())
    make_older(tmp_path / "store", 3)
    return tmp_path / "store"


def test_a_manifest_of_an_older_schema_lists_no_denoiser(older: Path) -> None:
    assert list_denoisers(older) == []
    assert newest_denoiser(older, FEATURES, "pets") is None
    with pytest.raises(NotInStoreError, match="none is trained yet"):
        find_denoiser(older, "d1")


def test_a_denoiser_is_listed_in_a_manifest_of_an_older_schema(older: Path) -> None:
    assert add(older, "pets", "r1", "aaaa1") == 1
    assert [one.name for one in list_denoisers(older)] == ["pets/vit/d1"]
