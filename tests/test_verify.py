"""Planted damage of every sort, found; and nothing found where nothing is wrong."""

import hashlib
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from fakes import FakeDecomposer, make_folder
from planted_damage import change, flip, place_of, shards
from tinystore import call

from featstore.build import build_version
from featstore.findings import KINDS
from featstore.index import index_dataset
from featstore.plan import Request
from featstore.trailer import append_trailer
from featstore.verify import Watcher, verify_store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of ten images, four samples a shard."""
    folder = tmp_path_factory.mktemp("verify")
    index_dataset(folder / "store", "pets", make_folder(folder / "pets", 10))
    build_version(folder / "store", Request("pets", "fake", shard_size=4), FakeDecomposer())
    build_version(folder / "store", Request("pets", "fake", shard_size=4), FakeDecomposer(scale=2.0))
    return folder / "store"


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "store"))


def kinds(root: Path, name: str | None = None, quick: bool = False) -> dict[str, int]:
    return verify_store(root, name, quick).counts


def test_a_store_as_it_was_written_is_clean(root: Path) -> None:
    counted: list[int] = []
    report = verify_store(root, watcher=Watcher(counted.append, counted.append))
    assert (report.findings, report.shards, report.samples, report.versions) == ((), 6, 20, 2)
    assert (counted[0], sum(counted[1:])) == (20, 20)
    assert report.bytes == sum(path.stat().st_size for path in shards(root))
    assert verify_store(root, "pets/fake/v2", quick=True).shards == 3
    assert verify_store(root, "pets").samples == 20


@pytest.mark.parametrize("name", ["raw", "clean", "artifact", "residual", "prefix_tokens"])
def test_a_flipped_bit_of_a_map_names_its_sample(root: Path, name: str) -> None:
    flip(shards(root)[0], place_of(shards(root)[0], name, 2) + 3)
    report = verify_store(root)
    assert report.counts == {"changed": 1, "sample": 1}
    assert report.findings[-1].rows == (2,)
    assert name in report.findings[-1].text
    assert kinds(root, "pets/fake/v1") == {} or kinds(root, "pets/fake/v2") == {}


def test_damage_that_no_map_shows_is_found_too(root: Path) -> None:
    path = shards(root)[0]
    size = path.stat().st_size
    for place in (size - 1, size - 40, size - 83, size - 84, 100):
        whole = path.read_bytes()
        flip(path, place)
        assert "changed" in kinds(root)
        assert ("changed" in kinds(root, quick=True)) == (place > size - 84)
        path.write_bytes(whole)
    assert kinds(root) == {}


def test_missing_short_and_long_shards(root: Path) -> None:
    first, second, third = shards(root)[:3]
    first.unlink()
    second.write_bytes(second.read_bytes()[:-200])
    third.write_bytes(third.read_bytes() + b"\0")
    for quick in (False, True):
        found = kinds(root, quick=quick)
        assert (found["missing"], found["size"]) == (1, 2)


def test_shards_that_changed_places_are_told_apart_from_damage(root: Path) -> None:
    first, second = shards(root)[:2]
    first.rename(root / "aside")
    second.rename(first)
    (root / "aside").rename(second)
    for quick in (False, True):
        report = verify_store(root, quick=quick)
        assert report.counts == {"swapped": 2}
        assert report.findings[0].text == f"it is {second.relative_to(root).as_posix()}"


def test_a_shard_of_another_version_and_a_foreign_file(root: Path) -> None:
    shutil.copy(shards(root)[3], shards(root)[0])
    shards(root)[1].write_bytes(b"PK\3\4" + b"x" * 5000)
    with h5py.File(shards(root)[2], "w") as file:
        file["x"] = np.zeros(3)
    found = kinds(root)
    assert (found["swapped"], found["size"], found["unreadable"]) == (1, 2, 2)


def test_a_shard_sealed_again_with_other_contents_is_found_by_its_digest(root: Path) -> None:
    path = shards(root)[0]
    with h5py.File(path, "a") as file:
        file["clean"][1, 0, 0, 0] += 1
    append_trailer(path)
    assert kinds(root)["swapped"] == 1
    change(root, "UPDATE shards SET checksum = NULL")
    assert kinds(root)["sample"] == 1


def test_a_residual_that_is_none_is_found_behind_right_checksums(root: Path) -> None:
    path = shards(root)[0]
    with h5py.File(path, "a") as file:
        values = file["residual"][0]
        values[0, 0, 0] += 1
        file["residual"][0] = values
        digest = hashlib.blake2b(values.tobytes(), digest_size=8).digest()
        file["checksum"][0, 3] = int.from_bytes(digest, "little")
        total = int(file["checksum"][0, 3])
    checksum = append_trailer(path)
    change(root, f"UPDATE shards SET checksum = '{checksum}' WHERE path = '{path.relative_to(root).as_posix()}'")
    assert kinds(root) == {"residual": 1, "table": 1}
    change(
        root,
        f"UPDATE features SET checksum_residual = {total} WHERE shard_row = 0 AND shard_id = "
        f"(SELECT shard_id FROM shards WHERE path = '{path.relative_to(root).as_posix()}')",
    )
    assert kinds(root) == {"residual": 1}


ROWS = {
    "UPDATE features SET checksum_raw = checksum_raw + 1 WHERE shard_id = 1 AND shard_row = 0": "table",
    "UPDATE features SET checksum_prefix = NULL WHERE shard_id = 1 AND shard_row = 0": "table",
    "UPDATE features SET norm_max = norm_max + 1 WHERE shard_id = 1 AND shard_row = 0": "table",
    "UPDATE features SET heldout_r2 = NULL WHERE shard_id = 1 AND shard_row = 0": "table",
    "UPDATE features SET shard_row = 9 WHERE shard_id = 1 AND shard_row = 0": "manifest",
    "UPDATE features SET shard_id = 99 WHERE shard_id = 1 AND shard_row = 0": "manifest",
    "UPDATE features SET sha256 = repeat('0', 64) WHERE shard_id = 1 AND shard_row = 0": "table",
    "UPDATE shards SET samples = 3 WHERE shard_id = 1": "table",
    "UPDATE shards SET bytes = bytes + 1 WHERE shard_id = 1": "size",
    "UPDATE shards SET variants = ['raw'] WHERE shard_id = 1": "table",
    "UPDATE shards SET digest = repeat('0', 64) WHERE shard_id = 1": "manifest",
    "UPDATE shards SET dataset = 'cats' WHERE shard_id = 1": "manifest",
    "UPDATE shards SET checksum = repeat('0', 64) WHERE shard_id = 1": "swapped",
    "DELETE FROM shards WHERE shard_id = 1": "manifest",
    "DELETE FROM features WHERE shard_id = 1 AND shard_row = 0": "table",
    "UPDATE versions SET recipe = '{}' WHERE number = 1": "recipe",
    "UPDATE versions SET grid_width = 7 WHERE number = 1": "table",
    "UPDATE shards SET grid_height = 7 WHERE shard_id = 1": "table",
    "DELETE FROM versions WHERE number = 1": "manifest",
    "UPDATE datasets SET revision = 7": "manifest",
    "DELETE FROM images WHERE image_id = 'cats/001.png'": "manifest",
}


@pytest.mark.parametrize("sql", ROWS)
def test_every_row_that_disagrees_is_found(root: Path, sql: str) -> None:
    change(root, sql)
    assert ROWS[sql] in kinds(root)


def test_samples_that_newer_shards_hold_are_notes(root: Path) -> None:
    index_dataset(root, "others", make_folder(root / "more", 10))
    build_version(root, Request("others", "fake", variants=("raw",), where="label = 'cats'"), FakeDecomposer(scale=3.0))
    assert build_version(root, Request("others", "fake"), FakeDecomposer(scale=3.0)).computed == 10
    report = verify_store(root)
    assert (report.counts, report.damage) == ({"superseded": 2}, [])


def test_recipes_on_the_disk(root: Path) -> None:
    first, second = sorted(root.rglob("recipe.json"))
    first.write_text(first.read_text() + " ")
    second.unlink()
    assert kinds(root) == {"recipe": 2}


def test_strays_are_notes(root: Path) -> None:
    folder = shards(root)[0].parent
    shutil.copy(shards(root)[0], folder / "shard-00077.h5")
    (folder / ".tmp-host-1-00000000").touch()
    report = verify_store(root)
    assert (report.counts, report.damage) == ({"unlisted": 1, "leftover": 1}, [])


def format_1(file: h5py.File) -> None:
    file.attrs["format_version"] = 1
    del file["checksum_prefix"]


def test_a_shard_of_format_1_is_verified_as_far_as_it_goes(root: Path) -> None:
    path = shards(root)[0]
    with h5py.File(path, "a") as file:
        format_1(file)
    name = path.relative_to(root).as_posix()
    change(root, f"UPDATE shards SET checksum = NULL, bytes = {path.stat().st_size} WHERE path = '{name}'")
    change(
        root,
        f"UPDATE features SET checksum_prefix = NULL WHERE shard_id = (SELECT shard_id FROM shards WHERE path = '{name}')",
    )
    report = verify_store(root)
    assert (report.counts, report.damage) == ({"format 1": 1}, [])
    flip(path, place_of(path, "clean", 1))
    assert verify_store(root).damage[0].rows == (1,)


@pytest.mark.slow
def test_a_denoiser_that_changed_is_found(trained: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(trained, tmp_path / "store"))
    assert kinds(root) == {}
    (path,) = root.rglob("denoiser.safetensors")
    flip(path, path.stat().st_size - 1000)
    assert kinds(root) == {"denoiser": 1}
    path.unlink()
    assert kinds(root, quick=True) == {"denoiser": 1}


def test_the_command_line_tells_it_and_exits_with_3(root: Path) -> None:
    said = call("verify", "--root", root)
    assert (said.code, said.err) == (0, "")
    assert "2 versions, 6 shards, 20 samples" in said.out
    flip(shards(root)[0], place_of(shards(root)[0], "raw", 0))
    said = call("verify", "pets", "--root", root)
    assert said.code == 3
    assert KINDS["changed"] in said.out
    assert "damaged: 2 findings" in said.err
    told = json.loads(call("verify", "--json", "--root", root).out)
    assert (told["ok"], told["counts"]) == (False, {"changed": 1, "sample": 1})
    assert call("verify", "nobody", "--root", root).code == 1
