"""A manifest made again from the disk says what the lost one said."""

import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import h5py
import pytest
from fakes import FakeDecomposer, make_folder
from planted_damage import change, shards
from tinystore import call

from featstore.build import build_version
from featstore.errors import InputError
from featstore.index import index_dataset
from featstore.plan import Request
from featstore.rebuild import rebuild_manifest
from featstore.removal import remove_dataset, remove_version
from featstore.snapshots import FOLDER
from featstore.tags import tag_version
from featstore.verify import verify_store

TABLES = {
    "datasets": "*",
    "revisions": "*",
    "images": "* EXCLUDE (mtime_ns)",
    "objects": "*",
    "versions": "* EXCLUDE (version_id)",
    "shards": "* EXCLUDE (shard_id, sealed_at)",
    "features": "f.* EXCLUDE (shard_id, seconds), s.path",
    "failures": "*",
    "builds": "* EXCLUDE (build_id)",
    "removed": "*",
    "denoisers": "*",
    "evaluations": "*",
    "denoiser_images": "*",
    "stored": "* EXCLUDE (seconds, mtime_ns, shard_id)",
    "coverage": "*",
}
"""What must be the same afterwards: all but numbers of rows and times."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VOC and pets; pets in three revisions, with versions, failures, superseded samples and shared images."""
    folder = tmp_path_factory.mktemp("rebuild")
    source, root = make_folder(folder / "pets", 10), folder / "store"
    (source / "broken.png").write_bytes(b"no image")
    index_dataset(root, "pets", source)
    build_version(root, Request("pets", "fake", ("raw",), shard_size=4), FakeDecomposer())
    (source / "cats" / "001.png").unlink()
    make_folder(source / "new", 2, seed=7)
    index_dataset(root, "pets", None)
    whole = (source / "cats" / "003.png").read_bytes()
    (source / "cats" / "003.png").write_bytes(whole + b" ")
    build_version(root, Request("pets", "fake", shard_size=4), FakeDecomposer())
    build_version(root, Request("pets", "fake", shard_size=3), FakeDecomposer(2.0))
    (source / "cats" / "003.png").write_bytes(whole)
    make_folder(source / "new", 2, seed=8)
    index_dataset(root, "pets", None)
    shutil.copytree(source / "dogs", folder / "others")
    index_dataset(root, "others", folder / "others")
    build_version(root, Request("others", "fake"), FakeDecomposer(2.0))
    change(root, "UPDATE versions SET tag = 'paper' WHERE dataset = 'pets' AND number = 2")
    build_version(root, Request("pets", "fake", shard_size=3), FakeDecomposer(2.0))
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made.parent, tmp_path / "all")
    return tmp_path / "all" / "store"


def tables(root: Path, without: tuple[str, ...] = ()) -> dict[str, list[Any]]:
    found = {}
    with duckdb.connect(str(root / "manifest.duckdb"), read_only=True) as connection:
        for name, columns in TABLES.items():
            source = "features f JOIN shards s USING (shard_id)" if name == "features" else name
            rows = connection.execute(f"SELECT {columns} FROM {source}").fetchall()
            found[name] = sorted(map(repr, rows))
    return {name: rows for name, rows in found.items() if name not in without}


@pytest.mark.parametrize("how", ["lost", "broken"])
def test_all_of_it_comes_back(root: Path, how: str) -> None:
    before = tables(root)
    path = root / "manifest.duckdb"
    if how == "lost":
        path.unlink()
    else:
        path.write_bytes(b"x" * 50_000)
    report = rebuild_manifest(root)
    assert report.notes == []
    assert (report.kept is None) == (how == "lost")
    if report.kept:
        assert Path(report.kept).read_bytes() == b"x" * 50_000
    after = tables(root)
    for name in TABLES:
        assert after[name] == before[name], name
    assert verify_store(root).damage == []
    decomposer = FakeDecomposer(2.0)
    for dataset in ("pets", "others"):
        wanted = build_version(root, Request(dataset, "fake", where="splits IS NOT NULL", limit=6), decomposer)
        assert wanted.version == ("v2" if dataset == "pets" else "v1")
    indexed = index_dataset(root, "pets", None)
    assert (indexed.revision, indexed.hashed) == (3, 2)  # one was touched, one never could be read


def test_the_next_build_computes_nothing(root: Path) -> None:
    build_version(root, Request("pets", "fake", shard_size=3, retry_failed=True), FakeDecomposer(2.0))
    (root / "manifest.duckdb").unlink()
    rebuild_manifest(root)
    decomposer = FakeDecomposer(2.0)
    report = build_version(root, Request("pets", "fake", shard_size=3), decomposer)
    assert (report.computed, decomposer.calls, report.version) == (0, [], "v2")


def test_a_dry_run_changes_nothing(root: Path) -> None:
    before = sorted(root.rglob("*"))
    data = (root / "manifest.duckdb").read_bytes()
    report = rebuild_manifest(root, dry_run=True)
    assert (report.rows["shards"], report.kept) == (len(shards(root)), None)
    assert (sorted(root.rglob("*")), (root / "manifest.duckdb").read_bytes()) == (before, data)


def strip(root: Path) -> None:
    """Leave shards alone, as a store of an older featstore has them."""
    for path in [*root.glob("*/*/*/version.json"), *root.glob("*/*/*/recipe.json")]:
        path.unlink()
    for folder in root.glob(f"*/{FOLDER}"):
        shutil.rmtree(folder)
    (root / "manifest.duckdb").unlink()


def test_shards_alone_give_versions_and_features(root: Path) -> None:
    before = tables(root)
    strip(root)
    report = rebuild_manifest(root)
    assert any("no index is kept" in note for note in report.notes)
    after = tables(root)
    for name in ("features", "shards"):
        assert after[name] == before[name], name
    with duckdb.connect(str(root / "manifest.duckdb"), read_only=True) as connection:
        inside = {
            (image_id, sha256)
            for path in shards(root)
            for file in [h5py.File(path)]
            for image_id, sha256 in zip(file["image_id"].asstr()[:], file["sha256"].asstr()[:], strict=True)
        }
        known = connection.execute("SELECT image_id, sha256 FROM images").fetchall()
        assert {row[0] for row in known} == {image_id for image_id, _ in inside}
        assert set(known) <= inside
        versions = connection.execute("SELECT number, method, grid_height FROM versions ORDER BY 1").fetchall()
    assert versions == [(1, "stage1", 4), (2, "stage1", 4)]
    verified = verify_store(root)
    assert {finding.kind for finding in verified.damage} <= {"recipe"}  # recipe.json is gone, and can be repaired
    index_dataset(root, "pets", root.parent / "pets")
    decomposer = FakeDecomposer()
    report_ = build_version(root, Request("pets", "fake", shard_size=4), decomposer)
    assert (report_.present, report_.wanted) == (8, 11)


def test_what_was_removed_does_not_come_back(root: Path) -> None:
    tag_version(root, "pets/fake", "v1", "first")
    remove_version(root, "pets/fake/v2", force=True)
    remove_dataset(root, "others")
    before = tables(root)
    (root / "manifest.duckdb").unlink()
    assert rebuild_manifest(root).notes == []
    after = tables(root)
    for name in TABLES:
        if name != "builds":  # those of versions that are gone are gone
            assert after[name] == before[name], name
    assert after["removed"] != []
    assert verify_store(root).damage == []


def test_a_revision_that_is_missing_is_written_by_the_next_indexing(root: Path) -> None:
    kept = sorted(path.name for path in (root / "pets" / FOLDER).iterdir())
    assert "00001.json" in kept
    assert "00002-retired.parquet" in kept
    shutil.rmtree(root / "pets" / FOLDER)
    index_dataset(root, "pets", None)
    assert sorted(path.name for path in (root / "pets" / FOLDER).iterdir()) == kept
    (root / "pets" / FOLDER / "00002.json").write_text(json.dumps({"created_at": "1999-01-01", "revision": 2}))
    index_dataset(root, "pets", None)
    assert json.loads((root / "pets" / FOLDER / "00002.json").read_text())["added"] == 2


def test_snapshots_hold_what_is_new_alone(root: Path) -> None:
    with duckdb.connect() as connection:
        counts = [
            connection.execute("SELECT count(*) FROM read_parquet(?)", [str(path)]).fetchall()[0][0]
            for path in sorted((root / "pets" / FOLDER).glob("*-images.parquet"))
        ]
    assert counts == [10, 2, 2]


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no store"):
        rebuild_manifest(tmp_path / "nowhere")


def test_denoisers_come_back(trained: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(trained, tmp_path / "store"))
    before = tables(root)
    (root / "manifest.duckdb").unlink()
    report = rebuild_manifest(root)
    assert report.notes == []
    assert tables(root) == before
    assert before["denoisers"]
    assert before["denoiser_images"]
    assert verify_store(root).findings == ()


def test_the_command_line(root: Path) -> None:
    said = call("manifest", "path", "--root", root)
    assert said.out.strip() == str(root / "manifest.duckdb")
    (root / "manifest.duckdb").write_bytes(b"x" * 50_000)
    assert call("ls", "--root", root).code == 1
    assert "manifest rebuild" in call("ls", "--root", root).err
    said = call("manifest", "rebuild", "--root", root)
    assert said.code == 0, said
    assert "manifest.duckdb.before-1" in said.out
    told = json.loads(call("manifest", "rebuild", "--dry-run", "--json", "--root", root).out)
    assert told["rows"]["datasets"] == 2
    assert call("ls", "--root", root).code == 0
