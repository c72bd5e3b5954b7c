"""Croissant: mlcroissant validates the file and loads what the manifest says; every checksum in it is true."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import mlcroissant
import pytest
from fakes import FakeDecomposer, make_folder
from tinystore import call, done, rows

from featstore import croissant_metadata
from featstore.build import build_version
from featstore.index import index_dataset
from featstore.plan import Request

LICENSE = ("--license", "https://creativecommons.org/licenses/by/4.0/")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of ``pets``, and of ``others`` that has six images of ``pets`` and two of its own; both in shards of 4."""
    tmp_path = tmp_path_factory.mktemp("croissant")
    root = tmp_path / "store"
    index_dataset(root, "pets", make_folder(tmp_path / "pets"))
    build_version(
        root, Request("pets", "fake", shard_size=4, provenance={"command": "featstore build"}), FakeDecomposer()
    )
    make_folder(tmp_path / "others" / "new", count=2, seed=9)
    (tmp_path / "others" / "old").symlink_to(tmp_path / "pets")
    index_dataset(root, "others", make_folder(tmp_path / "others"))
    build_version(root, Request("others", "fake", variants=("clean",)), FakeDecomposer())
    return root


def loaded(path: Path, record_set: str) -> list[dict[str, Any]]:
    """Validate a file with mlcroissant, without an error or a warning, and load one record set of it."""
    dataset = mlcroissant.Dataset(str(path))
    assert not dataset.metadata.ctx.issues.errors
    assert not dataset.metadata.ctx.issues.warnings
    return [{key.split("/")[1]: text(value) for key, value in row.items()} for row in dataset.records(record_set)]


def text(value: Any) -> Any:
    """mlcroissant gives texts as bytes."""
    if isinstance(value, list):
        return [text(entry) for entry in value]
    return value.decode() if isinstance(value, bytes) else value


def distribution(path: Path) -> dict[str, dict[str, Any]]:
    return {entry["@id"]: entry for entry in json.loads(path.read_text())["distribution"]}


@pytest.mark.parametrize("name", ["pets", "others"])
def test_mlcroissant_loads_what_the_manifest_says(root: Path, name: str) -> None:
    report = json.loads(done("croissant", f"{name}/fake/v1", *LICENSE, "--json", "--root", root).out)
    metadata = Path(report["metadata"])
    found = {row["image_id"]: row for row in loaded(metadata, "images")}
    columns = "image_id, sha256, width, label, shard, shard_row, checksum_raw, checksum_clean, heldout_r2, norm_max"
    expected = rows(root, f"SELECT {columns} FROM stored WHERE dataset = '{name}'")
    assert len(expected) == len(found) == report["images"]
    for image_id, sha256, width, label, shard, row, raw, clean, *stats in expected:
        told = found[image_id]
        assert (told["sha256"], told["width"], told["label"]) == (sha256, width, label)
        assert (told["shard"], told["row"]) == (shard, row)
        sums = [None if told[key] is None else int(told[key], 16) for key in ("checksum_raw", "checksum_clean")]
        assert sums == [raw, clean]
        assert [told["heldout_r2"], told["norm_max"]] == stats
    shards = {(row["path"], row["samples"], row["bytes"]) for row in loaded(metadata, "shards")}
    used = f"SELECT shard FROM stored WHERE dataset = '{name}'"
    assert shards == set(rows(root, f"SELECT path, samples, bytes FROM shards WHERE path IN ({used})"))


@pytest.mark.parametrize("elsewhere", [False, True])
def test_every_file_is_there_as_it_is_described(root: Path, tmp_path: Path, elsewhere: bool) -> None:
    where = ("--output", tmp_path / "card") if elsewhere else ()
    metadata = Path(json.loads(done("croissant", "others/fake/v1", *where, "--json", "--root", root).out)["metadata"])
    files = distribution(metadata)
    assert len(files) == 3 + len(rows(root, "SELECT DISTINCT shard FROM stored WHERE dataset = 'others'"))
    for entry in files.values():
        data = (metadata.parent / entry["contentUrl"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert entry["contentSize"] == f"{len(data)} B"
        assert not Path(entry["contentUrl"]).is_absolute()


def test_recipe_provenance_and_citation_are_told(root: Path) -> None:
    options = ("--creator", "A. Author", "--url", "https://example.org", "--base-url", "https://example.org/store/")
    said = done("croissant", "pets/fake/v1", *LICENSE, *options, "--root", root)
    assert "licence" not in said.err
    metadata = next((root / "pets").rglob("croissant.json"))
    told = json.loads(metadata.read_text())
    entries = {entry["name"]: entry["value"] for entry in told["additionalProperty"]}
    assert (entries["recipe.method.name"], entries["recipe.method.scale"]) == ("stage1", 1.0)
    assert entries["provenance.command"] == "featstore build"
    assert "2401.02957" in told["citeAs"]
    assert (told["version"], told["license"], told["creator"]["name"]) == ("1.0.0", LICENSE[1], "A. Author")
    digest = rows(root, "SELECT digest FROM versions WHERE dataset = 'pets'")[0][0]
    files = distribution(metadata)
    assert (told["identifier"], files["recipe.json"]["sha256"]) == (digest, digest)
    path = rows(root, "SELECT max(path) FROM shards")[0][0]
    assert distribution(metadata)[path]["contentUrl"] == f"https://example.org/store/{path}"
    assert mlcroissant.Dataset(str(metadata)).metadata.name == "pets-fake-v1"


def test_of_many_shards_the_pattern_is_named_and_the_table_has_the_checksums(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(croissant_metadata, "FILES_NAMED", 1)
    metadata = Path(json.loads(done("croissant", "pets/fake/v1", *LICENSE, "--json", "--root", root).out)["metadata"])
    (pattern,) = distribution(metadata)["shards-files"]["includes"]
    named = {path.name: path for path in metadata.parent.glob(pattern)}
    table = loaded(metadata, "shards")
    assert {Path(row["path"]).name for row in table} == set(named)
    for row in table:
        assert row["sha256"] == hashlib.sha256(named[Path(row["path"]).name].read_bytes()).hexdigest()


def test_errors_are_one_line(root: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(root, tmp_path / "store"))
    assert "no version 'v7'" in call("croissant", "v7", "--root", root).err
    shard = root / rows(root, "SELECT max(path) FROM shards WHERE path LIKE 'pets/%'")[0][0]
    shard.write_bytes(shard.read_bytes()[:-9])
    said = call("croissant", "pets/fake/v1", "--output", tmp_path / "card", "--root", root)
    assert (said.code, said.err.count("\n")) == (1, 1)
    assert "build again" in said.err
    assert not (tmp_path / "card" / "croissant.json").exists()
