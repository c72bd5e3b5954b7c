"""Every export, read back by the format's own library, is the store's own bytes."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from exported import NAMES, VARIANTS, make_store, stored_maps
from fakes import FakeDecomposer
from numpy.typing import NDArray
from tinystore import call, done

from featstore.build import build_version
from featstore.errors import CorruptError, InputError, NotInStoreError, QueryError, StoreError
from featstore.exchange.export import ExportRequest, export_version
from featstore.exchange.folder import Folder
from featstore.exchange.naming import file_names
from featstore.exchange.source import Wanted
from featstore.index import index_dataset
from featstore.plan import Request

Maps = dict[str, dict[str, NDArray[Any]]]
FORMATS = ("npy", "safetensors", "stacked", "parquet", "zarr", "webdataset")
EVERY = (*FORMATS, "dvt")


def some(*quick: str, among: Sequence[str] = EVERY) -> list[Any]:
    """Every format, all but a few of them only where slow tests are asked for."""
    return [kind if kind in quick else pytest.param(kind, marks=pytest.mark.slow) for kind in among]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def truth(root: Path) -> Maps:
    return stored_maps(root)


def options(kind: str, **wanted: Any) -> dict[str, Any]:
    several = kind in ("stacked", "parquet", "zarr", "webdataset")
    return {
        "wanted": Wanted("pets/fake/v1", **wanted),
        "format": "safetensors" if kind == "stacked" else kind,
        "per_file": 3 if several else None,
    }


def export(root: Path, kind: str, output: Path, resume: bool = False, overwrite: bool = False, **wanted: Any) -> Any:
    request = ExportRequest(**options(kind, **wanted), output=output, resume=resume, overwrite=overwrite)
    return export_version(root, request)


def index(output: Path) -> list[dict[str, str]]:
    with (output / "index.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_npy(output: Path) -> Maps:
    kinds = sorted(path.name for path in output.iterdir() if path.is_dir())
    return {
        row["image_id"]: {kind: np.load(output / kind / f"{row['file']}.npy") for kind in kinds}
        for row in index(output)
    }


def read_safetensors(output: Path) -> Maps:
    from safetensors.numpy import load_file

    return {row["image_id"]: load_file(output / row["file"]) for row in index(output)}


def read_stacked(output: Path) -> Maps:
    from safetensors import safe_open

    found: Maps = {}
    for row in index(output):
        with safe_open(output / row["file"], "numpy") as file:
            assert json.loads(file.metadata()["image_id"])[int(row["row"])] == row["image_id"]
            found[row["image_id"]] = {name: file.get_slice(name)[int(row["row"])] for name in file.keys()}  # noqa: SIM118
    return found


def read_parquet(output: Path) -> Maps:
    import pyarrow.parquet as pq

    table = pq.read_table(sorted(output.glob("*.parquet")))
    kinds = [name.removesuffix("_shape") for name in table.column_names if name.endswith("_shape")]
    dtype = np.dtype(json.loads(table.schema.metadata[b"featstore"])["dtype"])
    return {
        row["image_id"]: {kind: np.frombuffer(row[kind], dtype).reshape(row[f"{kind}_shape"]) for kind in kinds}
        for row in table.to_pylist()
    }


def read_zarr(output: Path) -> Maps:
    import zarr

    group = zarr.open_consolidated(output / "features.zarr", mode="r")
    kinds = json.loads((output / "featstore.json").read_text())["arrays"]
    return {
        str(name): {kind: np.asarray(group[kind][row]) for kind in kinds}
        for row, name in enumerate(group["image_id"][:])
    }


def read_webdataset(output: Path) -> Maps:
    import webdataset

    tars = [str(path) for path in sorted(output.glob("*.tar"))]
    samples = webdataset.WebDataset(tars, shardshuffle=False).decode()
    return {
        sample["json"]["image_id"]: {key[:-4]: values for key, values in sample.items() if key.endswith(".npy")}
        for sample in samples
    }


READ: dict[str, Callable[[Path], Maps]] = {
    "npy": read_npy,
    "safetensors": read_safetensors,
    "stacked": read_stacked,
    "parquet": read_parquet,
    "zarr": read_zarr,
    "webdataset": read_webdataset,
}


def same(found: Maps, expected: Maps, change: Callable[[NDArray[Any]], NDArray[Any]] = lambda values: values) -> None:
    assert list(found) == sorted(expected)
    for image_id, maps in expected.items():
        assert found[image_id].keys() == maps.keys()
        for name, values in maps.items():
            wanted, got = change(values), found[image_id][name]
            assert got.dtype == wanted.dtype, name
            np.testing.assert_array_equal(got, wanted, f"{image_id} {name}")


@pytest.mark.parametrize("kind", FORMATS)
def test_what_leaves_the_store_is_what_lies_in_it(kind: str, root: Path, truth: Maps, tmp_path: Path) -> None:
    report = export(root, kind, tmp_path / "out", prefix=True)
    assert (report.written, report.present, report.images) == (len(NAMES), 0, len(NAMES))
    same(READ[kind](tmp_path / "out"), truth)
    about = json.loads((tmp_path / "out" / "featstore.json").read_text())
    assert about["recipe"]["method"] == {"name": "stage1", "scale": 1.0}
    assert about["provenance"]["device"] == "abacus"
    assert not list((tmp_path / "out").rglob(".*"))


@pytest.mark.parametrize("kind", some("npy", "stacked", "zarr", among=FORMATS))
def test_dtype_channels_and_a_choice(kind: str, root: Path, truth: Maps, tmp_path: Path) -> None:
    chosen = {name: {"clean": maps["clean"]} for name, maps in sorted(truth.items()) if name.startswith("dogs/")}
    chosen = dict(list(chosen.items())[:2])
    wanted = {"variants": ("clean",), "dtype": "float32", "channels": "first", "where": "label = 'dogs'", "limit": 2}
    report = export(root, kind, tmp_path / "out", **wanted)
    assert report.arrays == {"clean": [8, 4, 5]}
    assert report.images == 2
    same(READ[kind](tmp_path / "out"), chosen, lambda values: values.transpose(2, 0, 1).astype(np.float32))


def test_the_layout_of_dvts_authors(root: Path, truth: Maps, tmp_path: Path) -> None:
    report = export(root, "dvt", tmp_path / "out")
    odd = {name for name in NAMES if " " in name} | {"same/x.png"}  # of same/x.gif and same/x.png the first is taken
    assert {item.image_id for item in report.left_out} == odd
    listed = (tmp_path / "out" / "images.txt").read_text(encoding="utf-8").split("\n")
    assert listed == [*sorted(set(NAMES) - odd), ""]
    for path in listed[:-1]:  # what the original does with a line of the list, in its own steps
        ending = os.path.splitext(path)[1]  # noqa: PTH122
        clean = f"{tmp_path}/out/denoised_features/fake/{path.replace(ending, '.npy')}"
        raw = clean.replace("denoised_features", "raw_features")
        assert np.load(clean).shape == (1, 4, 5, 8)
        assert np.load(raw).shape == (4, 5, 8)
        for file, name in ((clean, "clean"), (raw, "raw")):
            values = np.load(file)
            assert values.dtype == np.float32
            np.testing.assert_array_equal(values.squeeze(), truth[path][name].astype(np.float32))


def test_datasets_reads_the_parquet_files(root: Path, truth: Maps, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    export(root, "parquet", tmp_path / "out", variants=("clean",))
    files = sorted(map(str, (tmp_path / "out").glob("*.parquet")))
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.column_names[:5] == ["image_id", "sha256", "split", "splits", "label"]
    for row in loaded:
        clean = np.frombuffer(row["clean"], "<f2").reshape(row["clean_shape"])
        np.testing.assert_array_equal(clean, truth[row["image_id"]]["clean"])


def test_a_shard_of_zarr_is_a_file_and_a_sample_a_chunk(root: Path, tmp_path: Path) -> None:
    import zarr

    export(root, "zarr", tmp_path / "out", variants=("clean",))
    array = zarr.open_array(tmp_path / "out" / "features.zarr" / "clean", mode="r")
    assert (array.chunks, array.shards, array.metadata.zarr_format) == ((1, 4, 5, 8), (3, 4, 5, 8), 3)
    assert array.metadata.dimension_names == ("image", "height", "width", "channel")
    assert len(list((tmp_path / "out" / "features.zarr" / "clean" / "c").rglob("*/0/0/0"))) == -(-len(NAMES) // 3)
    group = zarr.open_group(tmp_path / "out" / "features.zarr", mode="r")
    assert group.attrs["recipe"]["method"]["name"] == "stage1"


def test_names_are_safe_unique_and_the_images_own() -> None:
    ids = [
        "a/1.jpg",
        "a/1.png",
        "b/1.jpg",
        "C/x.png",
        "c/X.png",
        "../up.png",
        "q?.png",
        "con.png",
        "50%.png",
        ".hid.png",
    ]
    ids += ["x" * 300 + ".png", "d.npy/e.png", "f. /g.png", "u\u0308.png", "ü.png"]
    names = file_names(ids, ids)
    assert names[:3] == ["a/1.jpg", "a/1.png", "b/1"]
    assert names[5:10] == ["%2E%2E/up", "q%3F", "%63on", "50%25", "%2Ehid"]
    assert len({name.casefold() for name in names}) == len(ids)
    assert max(len(part.encode()) for name in names for part in name.split("/")) < 220
    assert names[11:13] == ["d%2Enpy/e", "f.%20/g"]
    assert file_names(["VOC2007/2007_000027"], ["VOC2007/JPEGImages/2007_000027.jpg"]) == ["VOC2007/2007_000027"]
    assert file_names(["a.b/c.d.png"], ["a.b/c.d.png"], dots=False) == ["a.b/c%2Ed"]


@pytest.mark.parametrize("kind", some("npy", "zarr", "webdataset"))
def test_an_export_that_is_killed_goes_on_and_ends_alike(kind: str, root: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    export(root, kind, whole)
    request = {**options(kind), "wanted": vars(options(kind)["wanted"]), "output": str(killed)}
    script = Path(__file__).parent / "support" / "export_worker.py"
    worker = subprocess.Popen([sys.executable, script, str(root), json.dumps(request)], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    worker.stdout.readline()
    time.sleep(0.25)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert not (killed / "featstore.json").exists()
    (killed / f".tmp-{os.uname().nodename}-{worker.pid}-0123abcd").write_bytes(b"half")
    with pytest.raises(InputError, match="was begun there"):
        export(root, kind, killed)
    report = export(root, kind, killed, resume=True)
    assert report.written + report.present == report.images
    assert contents(killed) == contents(whole)
    assert export(root, kind, killed, resume=True).written == 0


def contents(folder: Path) -> dict[str, bytes]:
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    files["featstore.json"] = files["featstore.json"].replace(str(folder).encode(), b"FOLDER")
    return files


def test_another_export_and_foreign_files_are_left_alone(root: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"no export of featstore|which no export wrote"):
            export(root, "npy", tmp_path / "notes", overwrite=overwrite)
    export(root, "npy", tmp_path / "out", variants=("clean",))
    with pytest.raises(InputError, match="holds another export"):
        export(root, "npy", tmp_path / "out", resume=True)
    with pytest.raises(InputError, match="give one of them"):
        export(root, "npy", tmp_path / "out", resume=True, overwrite=True)
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis.txt, which no export wrote"):
        export(root, "zarr", tmp_path / "out", overwrite=True)
    (tmp_path / "out" / "thesis.txt").unlink()
    export(root, "zarr", tmp_path / "out", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["featstore.json", "features.zarr"]


def test_what_cannot_be_exported_is_told_before_anything_is_written(root: Path, tmp_path: Path) -> None:
    wrong: list[tuple[str, dict[str, Any], type[Exception], str]] = [
        ("npy", {"variants": ("cleen",)}, InputError, "unknown variants"),
        ("npy", {"variants": ("clean_fine",)}, NotInStoreError, "does not store clean_fine, only"),
        ("npy", {"where": "splitt = 'train'"}, QueryError, "splitt"),
        ("npy", {"where": "label = 'cows'"}, NotInStoreError, "no stored image"),
        ("dvt", {"variants": ("artifact",)}, InputError, "raw and clean, not artifact"),
        ("dvt", {"dtype": "float16"}, InputError, "is float32"),
    ]
    for kind, wanted, error, match in wrong:
        with pytest.raises(error, match=match):
            export(root, kind, tmp_path / "out", **wanted)
    with pytest.raises(InputError, match="replacing denoised_features"):
        export(root, "dvt", tmp_path / "my_denoised_features")
    with pytest.raises(NotInStoreError, match="no version 'pets/fake/v9'"):
        export_version(root, ExportRequest(Wanted("pets/fake/v9"), "npy", tmp_path / "out"))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_seen_before(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(StoreError, match=r"0.0 GB free and the export takes"):
        export(root, "npy", tmp_path / "out")


@pytest.mark.parametrize("kind", some("npy", "parquet"))
def test_a_damaged_or_missing_shard_ends_it_in_one_line(kind: str, root: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(root, store)
    shards = sorted(store.rglob("*.h5"))
    with h5py.File(shards[1]) as file:
        place = file["clean"].id.get_chunk_info(0).byte_offset
    with shards[1].open("r+b") as file:
        file.seek(place)
        file.write(b"\x55\x55")
    with pytest.raises(CorruptError, match=shards[1].name):
        export(store, kind, tmp_path / "out")
    shards[1].unlink()
    with pytest.raises(CorruptError, match=rf"{shards[1].name} is missing"):
        export(store, kind, tmp_path / "out", resume=True)
    assert not list((tmp_path / "out").glob(".tmp*"))
    assert not (tmp_path / "out" / "featstore.json").exists()


def test_a_file_has_its_name_when_it_is_whole(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"), Folder(tmp_path).put("a/b.npy") as temporary:
        temporary.write_bytes(b"half")
        raise ValueError("stop")
    assert not list(tmp_path.rglob("*.npy"))
    assert not list(tmp_path.glob(".tmp*"))


def test_the_command_line(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    planned = done("export", "pets/fake/v1", "--format", "npy", "--output", out, "--dry-run", "--json", "--root", root)
    assert json.loads(planned.out)["written"] == len(NAMES)
    assert not out.exists()
    said = done("export", "pets/fake/v1", "--format", "npy", "--output", out, "--variants", "clean", "--root", root)
    assert f"pets/fake/v1 as npy: wrote {len(NAMES)} images" in said.out
    again = call("export", "pets/fake/v1", "--format", "npy", "--output", out, "--variants", "clean", "--root", root)
    assert (again.code, again.err.count("\n")) == (1, 1)
    odd = call("export", "pets/fake/v1", "--format", "dvt", "--output", tmp_path / "dvt", "--root", root)
    assert odd.code == 3
    assert "left out a/b c.jpg.png: its path has a blank" in odd.err


def test_a_missing_package_names_the_extra(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, name in (("parquet", "pyarrow"), ("zarr", "zarr")):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(InputError, match=rf'needs {name}: pip install "featstore-dvt\[export\]"'):
            export(root, kind, tmp_path / "out")


def test_variants_that_the_store_must_derive(tmp_path: Path) -> None:
    store = make_store(tmp_path, variants=("raw", "clean", "artifact"))
    export(store, "npy", tmp_path / "out", variants=("residual",))
    found = read_npy(tmp_path / "out")
    for image_id, maps in stored_maps(store, ("raw", "clean", "artifact")).items():
        exact = maps["raw"].astype(np.float64) - maps["clean"] - maps["artifact"]
        np.testing.assert_array_equal(found[image_id]["residual"], exact.astype(np.float16))


def test_what_is_stored_compressed_or_in_one_byte_leaves_as_numbers(tmp_path: Path) -> None:
    exact = make_store(tmp_path)
    export(exact, "npy", tmp_path / "exact", variants=("raw",))
    request = Request("pets", "fake", ("raw",))
    for name, change in (("zstd", {"codec": "zstd"}), ("int8", {"store": "int8"})):
        store = shutil.copytree(tmp_path / "store", tmp_path / name)
        shutil.rmtree(store / "pets")
        (store / "manifest.duckdb").unlink()
        index_dataset(store, "pets", tmp_path / "pets")
        build_version(store, replace(request, **change), FakeDecomposer())
        export(store, "npy", tmp_path / f"{name}-out")
        for image_id, maps in read_npy(tmp_path / f"{name}-out").items():
            values = read_npy(tmp_path / "exact")[image_id]["raw"].astype(np.float32)
            step = np.ptp(values, axis=(0, 1)).max() / 255 if name == "int8" else 0
            assert maps["raw"].dtype == np.float16
            assert np.abs(maps["raw"] - values).max() <= 1.01 * step


assert VARIANTS == ("raw", "clean", "artifact", "residual")
