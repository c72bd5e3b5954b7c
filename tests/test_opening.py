"""``featstore.open``: the same samples as FeatureDataset, by the name that commands print."""

from pathlib import Path

import pytest
import torch
from fakes import FakeDecomposer, make_folder

import featstore
from featstore import FeatureDataset
from featstore.build import build_version
from featstore.errors import InputError, NotInStoreError
from featstore.index import index_dataset
from featstore.plan import Request


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("open")
    make_folder(folder / "pets")
    index_dataset(folder / "root", "pets", folder / "pets")
    build_version(folder / "root", Request("pets", "fake"), FakeDecomposer())
    return folder / "root"


@pytest.mark.parametrize("name", ["pets/fake", "pets/fake/v1", "/pets/fake/v1/"])
def test_a_name_opens_what_its_parts_say(root: Path, name: str) -> None:
    opened = featstore.open(name, root, variants=("raw", "clean"))
    plain = FeatureDataset(root, "pets", backbone="fake", variants=("raw", "clean"), version="v1")
    assert opened.image_ids == plain.image_ids
    for one, other in zip(opened, plain, strict=True):
        assert torch.equal(one["raw"], other["raw"])
        assert torch.equal(one["clean"], other["clean"])


@pytest.mark.parametrize("name", ["", "pets", "pets/", "a/b/c/d"])
def test_a_name_of_other_parts_is_told_what_to_give(root: Path, name: str) -> None:
    with pytest.raises(InputError, match="dataset/backbone/version"):
        featstore.open(name, root)


def test_what_is_not_there_is_told(root: Path) -> None:
    with pytest.raises(NotInStoreError, match="pets/fake/v1"):
        featstore.open("pets/fake/v9", root)
