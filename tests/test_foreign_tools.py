"""Shards and manifest are read by tools that know nothing of featstore."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import FakeDecomposer, make_folder

from featstore.build import build_version
from featstore.index import index_dataset
from featstore.plan import Request


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign")
    index_dataset(folder / "store", "pets", make_folder(folder / "pets"))
    build_version(folder / "store", Request("pets", "fake"), FakeDecomposer())
    return folder / "store"


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(shutil.which("h5ls") is None, reason="h5ls (Debian: hdf5-tools) is not installed")
def test_h5ls_lists_a_shard(root: Path) -> None:
    listing = run("h5ls", "-v", str(sorted(root.rglob("*.h5"))[0]))
    assert "clean                    Dataset {4/Inf, 4/4, 5/5, 8/8}" in listing
    assert "16-bit little-endian floating-point" in listing


def test_plain_h5py_and_numpy_read_a_shard(root: Path) -> None:
    script = """
import sys, glob, json, h5py
shards = sorted(glob.glob(sys.argv[1] + "/pets/fake/*/shard-*.h5"))
with h5py.File(shards[0]) as f:
    recipe = json.loads(f.attrs["recipe"])
    total = f["clean"][0].astype("f4") + f["artifact"][0] + f["residual"][0]
    print(f["image_id"].asstr()[0], f["clean"].shape, float(abs(total - f["raw"][0]).max()) < 1e-3, recipe["format"])
assert not any(name.startswith(("featstore", "dvt")) for name in sys.modules)
"""
    assert run(sys.executable, "-c", script, str(root)).strip() == "cats/001.png (4, 4, 5, 8) True 1"


def test_plain_duckdb_reads_the_manifest(root: Path) -> None:
    script = """
import sys, duckdb
c = duckdb.connect(sys.argv[1] + "/manifest.duckdb", read_only=True)
print(c.sql("SELECT stored, images FROM coverage").fetchall(), c.sql("SELECT count(*) FROM stored").fetchall())
assert not any(name.startswith(("featstore", "dvt")) for name in sys.modules)
"""
    assert run(sys.executable, "-c", script, str(root)).strip() == "[(6, 6)] [(6,)]"


DUCKDB = shutil.which("duckdb", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


@pytest.mark.skipif(DUCKDB is None, reason="the duckdb command line (PyPI: duckdb-cli) is not installed")
def test_the_duckdb_command_line_reads_the_manifest(root: Path) -> None:
    answer = run(str(DUCKDB), "-readonly", "-csv", str(root / "manifest.duckdb"), "SELECT stored FROM coverage")
    assert answer.split() == ["stored", "6"]
