"""docs/store-format.md is true: its code runs on a store made here, and nothing that a store holds is missing in it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import h5py
import numpy as np
import pytest
from bad_images import make_voc
from fakes import FakeDecomposer

import featstore
from featstore.build import build_version
from featstore.filters import CODECS
from featstore.index import index_dataset
from featstore.plan import Request

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "store-format.md").read_text(encoding="utf-8")
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
VARIANTS = ("raw", "clean", "artifact", "residual", "clean_fine")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds feature-store, with three versions of voc: all maps, others without residual, int8."""
    folder = tmp_path_factory.mktemp("format")
    root = folder / "feature-store"
    index_dataset(root, "voc", make_voc(folder / "VOCdevkit", years=("VOC2012",)).folder)
    build_version(root, Request("voc", "dinov2_b", VARIANTS, shard_size=4), FakeDecomposer(fine_grid=(8, 10)))
    build_version(root, Request("voc", "dinov2_b", VARIANTS[:3], codec="gzip"), FakeDecomposer(scale=3.0))
    build_version(root, Request("voc", "dinov2_b", VARIANTS[:3], store="int8"), FakeDecomposer())
    return folder


def test_the_python_of_the_page_reads_what_featstore_reads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    told: dict[str, Any] = {}
    for block in blocks("python"):
        assert "featstore" not in re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE)
        exec(compile(block, "store-format.md", "exec"), told)
    item = featstore.open("voc/dinov2_b/v1", variants=VARIANTS[:4], root=folder / "feature-store", prefix=True)[
        told["image_id"]
    ]
    for name in ("raw", "clean", "artifact", "residual"):
        np.testing.assert_array_equal(told[name].transpose(2, 0, 1), item[name].numpy())
    np.testing.assert_array_equal(told["mapped"], told["clean"])
    np.testing.assert_array_equal(told["prefix_tokens"], item["prefix"].numpy())
    small = featstore.open("voc/dinov2_b/v3", variants=("clean",), root=folder / "feature-store")[told["image_id"]]
    np.testing.assert_array_equal(told["restored"].transpose(2, 0, 1), small["clean"].numpy())
    assert {name: len(places) for name, places in told["found"].items()} == {
        f"2012_{number:06d}": 3 for number in range(6)
    }


def test_the_sql_of_the_page_runs(folder: Path) -> None:
    with duckdb.connect(str(folder / "feature-store" / "manifest.duckdb"), read_only=True) as connection:
        dogs, sizes, differences = (connection.execute(sql).fetchall() for sql in blocks("sql"))
    assert [(name, row) for name, _, row, _ in dogs] == [("2012_000001", 1), ("2012_000004", 0)]
    on_disk = {
        path.name: sum(shard.stat().st_size for shard in path.glob("*.h5"))
        for path in (folder / "feature-store" / "voc" / "dinov2_b").iterdir()
    }
    assert {name: size for _, _, name, _, _, size in sizes} == on_disk
    assert ("$.method.scale", "1.0", "3.0") in differences


@pytest.mark.parametrize("block", blocks("sh"), ids=lambda block: block.split()[0])
def test_the_shell_of_the_page_runs(block: str, folder: Path) -> None:
    used = [tool for tool in ("h5ls", "duckdb", "b2sum") if re.search(rf"\b{tool} -", block)]
    missing = [tool for tool in used if shutil.which(tool, path=PATH) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    done = subprocess.run(
        ["bash", "-c", block], cwd=folder, env={**os.environ, "PATH": PATH}, capture_output=True, text=True, check=True
    )
    expected = {"h5ls": ("Dataset {4/Inf, 4, 5, 8}", 10), "duckdb": ("stage1/fake", 3), "b2sum": ("is whole", 6)}[
        used[0]
    ]
    assert done.stdout.count(expected[0]) == expected[1], done.stdout


def test_all_that_a_shard_holds_is_on_the_page(folder: Path) -> None:
    names: set[str] = set()
    for path in (folder / "feature-store").rglob("shard-*.h5"):
        with h5py.File(path) as file:
            file.visit(names.add)
            names |= set(file.attrs) | set(file["clean"].attrs)
    named = {re.sub(r"^(stats|affine)/.*", r"\1/<", name) for name in names} - {"stats", "affine", "DIMENSION_LABELS"}
    assert {name for name in named if f"`{name}" not in PAGE} == set()
    assert {name for name in CODECS if f"`{name}`" not in PAGE} == set()


def test_all_that_a_store_holds_is_on_the_page(folder: Path) -> None:
    kinds = {re.sub(r"\d{5}", "00000", path.name) for path in (folder / "feature-store").rglob("*") if path.is_file()}
    for kind in kinds:
        name = kind.replace("00000.json", "00001.json").replace("00000-", "00001-").replace("-objects.", "-images.")
        assert name in PAGE, name


def test_every_table_is_on_the_page_of_tables(folder: Path) -> None:
    page = (DOCS / "manifest.md").read_text(encoding="utf-8")
    with duckdb.connect(str(folder / "feature-store" / "manifest.duckdb"), read_only=True) as connection:
        columns = connection.execute(
            "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal"
        ).fetchall()
    for table, column in columns:
        part = page.split(f"\n### {table}\n")[1].split("\n### ")[0]
        assert f"| `{column}` |" in part, (table, column)
