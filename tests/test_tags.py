"""Tags: one version's at a time, nothing that could be taken for something else, and found by every reader."""

import json
import shutil
from pathlib import Path

import pytest
from fakes import FakeDecomposer, make_folder
from tinystore import call, done, rows

import featstore
from featstore.build import build_version
from featstore.errors import InputError, NotInStoreError
from featstore.index import index_dataset
from featstore.plan import Request
from featstore.tags import check_tag, tag_version


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets, ``pets`` with v1 and v2, ``cars`` with v1."""
    folder = tmp_path_factory.mktemp("tags")
    root = folder / "store"
    for name in ("pets", "cars"):
        index_dataset(root, name, make_folder(folder / "pets", count=2))
    for name, scale in (("pets", 1.0), ("pets", 2.0), ("cars", 1.0)):
        build_version(root, Request(name, "fake"), FakeDecomposer(scale))
    return root


@pytest.fixture
def root(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "store"))


def tags(root: Path) -> list[str | None]:
    return [row[0] for row in rows(root, "SELECT tag FROM versions ORDER BY dataset DESC, number")]


def test_a_tag_is_found_by_commands_and_readers(root: Path) -> None:
    assert "pets/fake/v2 is tagged paper" in done("tag", "pets/fake", "v2", "paper", "--root", root).out
    assert json.loads(done("show", "pets/fake/paper", "--json", "--root", root).out)["version"] == "pets/fake/v2"
    assert featstore.open("pets/fake/paper", root).version.number == 2
    assert done("tag", "pets", "v1", "first", "--root", root).code == 0
    assert tags(root) == ["first", "paper", None]


def test_it_is_one_versions_within_a_data_set_and_backbone(root: Path) -> None:
    tag_version(root, "pets/fake", "v1", "paper")
    tag_version(root, "cars/fake", "v1", "paper")
    with pytest.raises(InputError, match="pets/fake/v1 is tagged 'paper' already: --force moves"):
        tag_version(root, "pets/fake", "v2", "paper")
    with pytest.raises(InputError, match="pets/fake/v1 is tagged 'paper' already: --force replaces"):
        tag_version(root, "pets/fake", "v1", "draft")
    assert tag_version(root, "pets/fake", "v1", "paper").before == "paper"
    assert tag_version(root, "pets/fake", "v2", "paper", force=True).taken_from == "pets/fake/v1"
    assert tags(root) == [None, "paper", "paper"]


def test_it_is_taken_off(root: Path) -> None:
    tag_version(root, "pets/fake", "v1", "paper")
    assert "taken off" in done("tag", "pets/fake", "paper", "--delete", "--root", root).out
    assert tags(root) == [None, None, None]
    with pytest.raises(NotInStoreError, match="has no tag"):
        tag_version(root, "pets/fake", "v1", None)


def test_a_dry_run_changes_nothing(root: Path) -> None:
    facts = json.loads(done("tag", "pets/fake", "v1", "paper", "--dry-run", "--json", "--root", root).out)
    assert facts == {"version": "pets/fake/v1", "tag": "paper", "before": None, "taken_from": None, "dry_run": True}
    assert tags(root) == [None, None, None]


@pytest.mark.parametrize("tag", ["v3", "V12", "7", "2024", "cafe", "DEADBEEF", "a/b", "", "-x", "two words", "ä"])
def test_what_could_be_taken_for_something_else_is_refused(tag: str) -> None:
    with pytest.raises(InputError):
        check_tag(tag)


@pytest.mark.parametrize("tag", ["paper", "iccv-2025", "v3.1", "v3-final", "bad", "x"])
def test_other_names_are_taken(tag: str) -> None:
    assert check_tag(tag) == tag


def test_usage(root: Path) -> None:
    assert call("tag", "pets/fake", "v1", "--root", root).code == 2
    assert call("tag", "pets/fake", "v1", "x", "--delete", "--root", root).code == 2
    said = call("tag", "pets/fake", "v9", "paper", "--root", root)
    assert (said.code, said.err.count("\n")) == (1, 1)
