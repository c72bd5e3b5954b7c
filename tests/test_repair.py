"""Repair: the bytes of before come back, and no sample is computed that was whole."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from fakes import FakeDecomposer, make_folder
from planted_damage import change, flip, place_of, shards
from tinystore import MODEL, call, done, photographs

from featstore.build import build_version
from featstore.errors import LockedError
from featstore.index import index_dataset
from featstore.manifest import reading
from featstore.plan import Request
from featstore.repair import RepairReport, repair_store
from featstore.root import build_lock
from featstore.verify import verify_store
from featstore.versions import Version

ENVIRONMENT = {"python": "3", "device": "cpu: test"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of ten images, four samples a shard; one image cannot be decoded."""
    folder = tmp_path_factory.mktemp("repair")
    source = make_folder(folder / "pets", 10)
    index_dataset(folder / "store", "pets", source)
    whole = (source / "cats" / "003.png").read_bytes()
    (source / "cats" / "003.png").write_bytes(b"gone")
    for scale in (1.0, 2.0):
        request = Request("pets", "fake", shard_size=4, environment=ENVIRONMENT, provenance={"command": "x"})
        build_version(folder / "store", request, FakeDecomposer(scale))
    (source / "cats" / "003.png").write_bytes(whole)
    return folder / "store"


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "store"))


class Made:
    """Makes fake decomposers, and keeps them so that a test sees what they computed."""

    def __init__(self) -> None:
        self.all: list[FakeDecomposer] = []

    def __call__(self, version: Version) -> FakeDecomposer:
        self.all.append(FakeDecomposer(float(version.number)))
        return self.all[-1]

    @property
    def computed(self) -> int:
        return sum(sum(one.calls) for one in self.all)


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in shards(root)}


def tables(root: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Everything the manifest says of shards and features, but times."""
    with reading(root) as connection:
        return {
            "shards": connection.execute("SELECT * EXCLUDE (sealed_at) FROM shards ORDER BY path").fetchall(),
            "features": connection.execute("SELECT * EXCLUDE (seconds) FROM features ORDER BY ALL").fetchall(),
            "failures": connection.execute("SELECT * EXCLUDE (failed_at) FROM failures ORDER BY ALL").fetchall(),
        }


def repaired(root: Path, expected: int, name: str | None = None) -> RepairReport:
    """Repair, and see that the store is as it was, with ``expected`` samples computed again."""
    maker = Made()
    report = repair_store(root, name, maker)
    assert (report.left, report.recomputed, maker.computed) == ([], expected, expected)
    assert verify_store(root).findings == ()
    return report


def test_a_clean_store_is_left_alone(root: Path) -> None:
    report = repaired(root, 0)
    assert (report.actions, report.dropped) == ([], 0)


def test_damaged_samples_alone_are_computed_again(root: Path) -> None:
    before, listed = contents(root), tables(root)
    first, second = shards(root)[0], shards(root)[4]
    flip(first, place_of(first, "raw", 1) + 5)
    flip(first, place_of(first, "clean", 2))
    flip(first, place_of(first, "artifact", 2))
    flip(second, place_of(second, "prefix_tokens", 0))
    dry = repair_store(root, None, Made(), dry_run=True)
    assert (dry.recomputed, [action.same for action in dry.actions]) == (3, [None, None])
    report = repaired(root, 3)
    assert [action.same for action in report.actions] == [True, True]
    assert contents(root) == before
    assert tables(root) == listed


def test_a_residual_follows_from_the_rest(root: Path) -> None:
    before = contents(root)
    flip(shards(root)[0], place_of(shards(root)[0], "residual", 2))
    repaired(root, 0)
    assert contents(root) == before


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_missing_shard_is_made_from_the_manifests_rows(root: Path, number: int) -> None:
    before, listed = contents(root), tables(root)
    count = len(tables(root)["features"])
    shards(root)[number].unlink()
    with h5py.File(shards(root)[number]) as file:
        assert file["image_id"].shape[0] > 0
    report = repaired(root, [3, 4, 2][number])
    assert report.actions[0].same is True
    assert contents(root) == before
    assert tables(root) == listed
    assert len(listed["features"]) == count


def test_metadata_and_trailer_cost_no_computation_where_maps_can_be_read(root: Path) -> None:
    before = contents(root)
    path = shards(root)[0]
    size = path.stat().st_size
    flip(path, size - 20)
    flip(shards(root)[1], before_text(before[shards(root)[1].relative_to(root).as_posix()], b"cpu: test") + 1)
    repaired(root, 0)
    assert contents(root) == before


def before_text(data: bytes, text: bytes) -> int:
    return data.index(text)


def test_cut_short_foreign_and_unreadable_shards(root: Path) -> None:
    before = contents(root)
    paths = shards(root)
    paths[0].write_bytes(paths[0].read_bytes()[:-2000])
    paths[1].write_bytes(b"x" * 3000)
    shutil.copy(paths[4], paths[5])
    maker = Made()
    report = repair_store(root, None, maker)
    assert report.left == []
    assert report.recomputed == maker.computed <= 3 + 4 + 2
    assert contents(root) == before


def test_shards_that_changed_places_are_put_back(root: Path) -> None:
    before = contents(root)
    first, second, third = shards(root)[:3]
    first.rename(root / "aside")
    second.rename(first)
    (root / "aside").rename(second)
    third.rename(third.with_name("shard-00042.h5"))
    report = repaired(root, 0)
    assert [action.deed for action in report.actions] == ["moved"] * 3
    assert contents(root) == before


ROWS = [
    "UPDATE features SET checksum_raw = checksum_raw + 1 WHERE shard_id = 1",
    "UPDATE features SET norm_max = 0 WHERE shard_id = 1 AND shard_row = 0",
    "UPDATE features SET shard_row = 9 WHERE shard_id = 1 AND shard_row = 0",
    "UPDATE features SET sha256 = repeat('0', 64) WHERE shard_id = 1 AND shard_row = 0",
    "DELETE FROM features WHERE shard_id = 1 AND shard_row > 1",
    "UPDATE shards SET samples = 2 WHERE shard_id = 1",
    "UPDATE shards SET bytes = bytes + 1 WHERE shard_id = 1",
    "UPDATE shards SET checksum = repeat('0', 64) WHERE shard_id = 1",
    "UPDATE shards SET variants = ['raw'] WHERE shard_id = 1",
    "UPDATE shards SET digest = repeat('0', 64) WHERE shard_id = 1",
    "UPDATE shards SET dataset = 'cats' WHERE shard_id = 1",
    "DELETE FROM shards WHERE shard_id = 1",
    "UPDATE versions SET recipe = '{}'",
]


@pytest.mark.parametrize("sql", ROWS)
def test_the_manifests_rows_are_taken_from_whole_shards(root: Path, sql: str) -> None:
    before, listed = contents(root), tables(root)
    change(root, sql)
    repaired(root, 0)
    assert contents(root) == before
    after = tables(root)
    if sql.startswith("DELETE FROM shards"):  # it gets a new number
        assert [row[1:] for row in after["shards"]] == [row[1:] for row in listed["shards"]]
    else:
        assert after == listed


def test_recipes_come_back(root: Path) -> None:
    before = {path: path.read_bytes() for path in root.rglob("recipe.json")}
    for path in before:
        path.unlink()
    repaired(root, 0)
    assert {path: path.read_bytes() for path in root.rglob("recipe.json")} == before


def test_an_image_that_is_gone_becomes_a_failure_and_its_neighbours_stay(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made.parent, tmp_path / "all")
    root, source = tmp_path / "all" / "store", tmp_path / "all" / "pets"
    index_dataset(root, "pets", source)
    (source / "cats" / "001.png").unlink()
    path = shards(root)[0]
    with h5py.File(path) as file:
        row = file["image_id"].asstr()[:].tolist().index("cats/001.png")
        kept = [file["clean"][number] for number in range(3) if number != row]
    flip(path, place_of(path, "raw", row))
    maker = Made()
    report = repair_store(root, None, maker)
    assert (report.recomputed, [failure.image_id for failure in report.lost]) == (0, ["cats/001.png"])
    assert report.left == []
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["clean"][:], kept)
    with reading(root) as connection:
        found = connection.execute("SELECT image_id, step FROM failures WHERE step = 'read' ORDER BY ALL").fetchall()
    assert ("cats/001.png", "read") in found


def test_repair_waits_for_nobody_who_builds(root: Path) -> None:
    with build_lock(root), pytest.raises(LockedError, match="is building"):
        repair_store(root, None, Made())


@pytest.mark.slow
def test_random_damage_is_mended_to_the_same_bytes(root: Path) -> None:
    before, listed = contents(root), tables(root)
    generator = random.Random(11)
    for _ in range(40):
        for path in generator.sample(shards(root), 2):
            for _ in range(generator.randint(1, 4)):
                flip(path, generator.randrange(path.stat().st_size), generator.randrange(8))
        assert repair_store(root, None, Made()).left == []
        assert contents(root) == before
        assert tables(root) == listed


def test_the_command_line_repairs_by_the_recorded_command(tmp_path: Path) -> None:
    root, source = tmp_path / "store", photographs(tmp_path / "pets", range(5))
    done(
        "build",
        "pets",
        "--source",
        source,
        *MODEL,
        "--method",
        "raw",
        "--shard-size",
        3,
        "--batch-size",
        1,
        "--root",
        root,
    )
    before = contents(root)
    flip(shards(root)[0], place_of(shards(root)[0], "raw", 1))
    shards(root)[1].unlink()
    assert call("verify", "--root", root).code == 3
    said = call("verify", "--repair", "--dry-run", "--root", root)
    assert said.code == 3
    assert "3 samples would be computed again" in said.out
    said = call("verify", "--repair", "--root", root)
    assert (said.code, contents(root) == before) == (0, True), said
    assert "(2 copied, 1 computed), the bytes that were sealed" in said.out
    assert "3 samples computed again" in said.out
    assert done("verify", "--root", root).out.endswith("all is as it was written\n")
    told = json.loads(done("verify", "--repair", "--json", "--root", root).out)
    assert (told["recomputed"], told["found"]["ok"], told["left"]) == (0, True, [])
    assert call("verify", "--repair", "--quick", "--root", root).code == 2
