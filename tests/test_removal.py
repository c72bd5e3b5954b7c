"""rm: what leaves the manifest, what stays for others, and that a build until gc takes it all back."""

import json
import shutil
from pathlib import Path

import pytest
from fakes import FakeDecomposer, make_folder
from keeping import check_store, shard_files
from tinystore import call, done, rows

from featstore.build import build_version
from featstore.errors import InputError, LockedError, NotInStoreError
from featstore.index import index_dataset
from featstore.plan import Request
from featstore.removal import remove_dataset, remove_version
from featstore.root import build_lock
from featstore.tags import tag_version


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``pets`` with v1, v2, and ``others``, whose v1 has the recipe of pets' v1, all images of pets and two of its own."""
    folder = tmp_path_factory.mktemp("removal")
    root = folder / "store"
    index_dataset(root, "pets", make_folder(folder / "pets"))
    make_folder(folder / "others" / "new", count=2, seed=9)
    index_dataset(root, "others", make_folder(folder / "others"))
    for name, scale in (("pets", 1.0), ("pets", 2.0), ("others", 1.0)):
        build(root, name, scale)
    return root


@pytest.fixture
def root(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "store"))


def build(root: Path, name: str = "pets", scale: float = 1.0) -> tuple[str, int, int]:
    report = build_version(root, Request(name, "fake", shard_size=4), FakeDecomposer(scale))
    return report.version, report.present, report.computed


def versions(root: Path) -> list[tuple[object, ...]]:
    return rows(root, "SELECT dataset, 'v' || number, tag FROM versions ORDER BY ALL")


def test_a_removed_version_is_gone_from_the_manifest_and_its_files_wait(root: Path) -> None:
    before = shard_files(root)
    removal = remove_version(root, "pets/fake/v2")
    assert (removal.versions, removal.shards, removal.kept_shards) == (("pets/fake/v2",), 2, 0)
    assert (
        removal.bytes == rows(root, "SELECT sum(bytes) FROM shards WHERE digest IN (SELECT digest FROM removed)")[0][0]
    )
    assert versions(root) == [("others", "v1", None), ("pets", "v1", None)]
    assert shard_files(root) == before
    assert rows(root, "SELECT dataset, number, purged_at FROM removed") == [("pets", 2, None)]
    assert "pets/fake/v2" not in done("ls", "--root", root).out


def test_building_again_takes_it_back_and_computes_nothing(root: Path) -> None:
    before = {name: (root / name).read_bytes() for name in shard_files(root)}
    remove_version(root, "pets/fake/v2")
    assert build(root, scale=2.0) == ("v2", 6, 0)
    assert {name: (root / name).read_bytes() for name in shard_files(root)} == before
    assert rows(root, "SELECT count(*) FROM removed") == [(0,)]
    assert check_store(root) == 6 + 6 + 8


def test_a_number_is_never_used_for_another_recipe(root: Path) -> None:
    remove_version(root, "pets/fake/v2")
    done("gc", "--root", root)
    assert build(root, scale=3.0) == ("v3", 0, 6)
    assert build(root, scale=2.0) == ("v2", 0, 6)
    assert build(root, scale=4.0) == ("v4", 0, 6)


def test_shards_to_which_another_data_set_refers_are_kept(root: Path) -> None:
    removal = remove_version(root, "pets/fake/v1")
    assert (removal.shards, removal.bytes, removal.kept_shards) == (0, 0, 3)
    assert build(root, "others") == ("v1", 8, 0)
    assert rows(root, "SELECT stored, images FROM coverage WHERE dataset = 'others'") == [(8, 8)]


def test_a_tagged_version_needs_force(root: Path) -> None:
    tag_version(root, "pets/fake", "v2", "paper")
    with pytest.raises(InputError, match=r"pets/fake/v2 \(paper\) is tagged: --force"):
        remove_version(root, "paper")
    with pytest.raises(InputError, match="is tagged"):
        remove_dataset(root, "pets")
    assert len(versions(root)) == 3
    assert remove_version(root, "paper", force=True).versions == ("pets/fake/v2",)


def test_a_dry_run_changes_nothing_and_needs_no_lock(root: Path) -> None:
    before = (root / "manifest.duckdb").read_bytes()
    with build_lock(root):
        planned = remove_version(root, "pets/fake/v2", dry_run=True)
        with pytest.raises(LockedError):
            remove_version(root, "pets/fake/v2")
    assert (root / "manifest.duckdb").read_bytes() == before
    assert remove_version(root, "pets/fake/v2") == planned


def test_a_data_set_goes_as_a_whole_and_can_be_indexed_again(root: Path, store: Path) -> None:
    facts = json.loads(done("rm", "pets", "--dataset", "--json", "--root", root).out)
    assert (facts["versions"], facts["images"], facts["dry_run"]) == (["pets/fake/v1", "pets/fake/v2"], 6, False)
    assert (facts["shards"], facts["kept_shards"]) == (2, 3)
    for table in ("datasets", "revisions", "images", "objects", "versions"):
        assert rows(root, f"SELECT count(*) FROM {table} WHERE dataset = 'pets'") == [(0,)]
    assert check_store(root) == 8
    index_dataset(root, "pets", store.parent / "pets")
    assert build(root, scale=2.0) == ("v2", 6, 0)


def test_errors_say_what_to_do(root: Path, tmp_path: Path) -> None:
    with pytest.raises(NotInStoreError, match=r"no version 'pets' .*featstore rm pets --dataset"):
        remove_version(root, "pets")
    with pytest.raises(NotInStoreError, match="means several"):
        remove_version(root, "v1")
    with pytest.raises(NotInStoreError, match="no data set 'cars'"):
        remove_dataset(root, "cars")
    said = call("rm", "v1", "--root", tmp_path / "nowhere")
    assert (said.code, said.err.count("\n")) == (1, 1)
    assert not (tmp_path / "nowhere").exists()


def test_words_of_the_command(root: Path) -> None:
    assert done("rm", "pets/fake/v2", "--dry-run", "--root", root).out.startswith(
        "would remove pets/fake/v2\n  2 shards, "
    )
    assert (
        "3 shards of the same recipe, to which another version refers, stay"
        in done("rm", "pets/fake/v1", "--root", root).out
    )
    assert (
        "data set others: 8 images with 1 version (others/fake/v1)"
        in done("rm", "others", "--dataset", "--root", root).out
    )
