"""What others computed becomes a version: the same bits, the right images, never mixed with what was computed here."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported import NAMES, PREFIX, VARIANTS, make_source, make_store, stored_maps
from numpy.typing import NDArray
from tinystore import TRAIN, call, done, rows

from featstore import FeatureDataset
from featstore.errors import FeatstoreError, InputError, NotInStoreError, SourceError
from featstore.exchange.export import ExportRequest, export_version
from featstore.exchange.imports import ImportReport, ImportRequest, import_version
from featstore.exchange.matching import Entry, Image, match
from featstore.exchange.source import Wanted
from featstore.index import index_dataset
from featstore.recipe import Recipe
from featstore.verify import verify_store

MODEL = "vit_base_patch14_dinov2.lvd142m"
GRID, WIDTH = (3, 4), 6
Maps = dict[str, dict[str, NDArray[Any]]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("imports"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that knows the images and holds no features."""
    folder = tmp_path_factory.mktemp("bare")
    index_dataset(folder / "store", "pets", make_source(folder / "pets"))
    return folder / "store"


@pytest.fixture
def fresh(bare: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bare, tmp_path / "fresh")


def bring(root: Path, folder: Path, backbone: str | None = None, **options: Any) -> ImportReport:
    return import_version(root, ImportRequest(folder, "pets", backbone, **options))


def write(path: Path, values: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)


def planted(name: str, scale: float = 1.0) -> NDArray[np.float32]:
    seed = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
    return (np.random.default_rng(seed).normal(0, scale, (*GRID, WIDTH))).astype(np.float32)


def originals(folder: Path, names: Sequence[str], model: str = MODEL) -> Path:
    """Write what the original code writes for images of these paths: raw (H, W, C), denoised (1, H, W, C), float32."""
    for name in names:
        place = name.replace(os.path.splitext(name)[1], ".npy")  # noqa: PTH122
        write(folder / "raw_features" / model / place, planted(name))
        write(folder / "denoised_features" / model / place, planted(name, 0.5)[None])
    return folder


PLAIN = ("cats/1.png", "cats/2.png", "dogs/1.png", "dogs/2.png", "日本/猫.png")


@pytest.mark.parametrize("kind", ["npy", "safetensors", "stacked", "parquet", "zarr", "webdataset"])
@pytest.mark.parametrize("dtype", ["float16", pytest.param("float32", marks=pytest.mark.slow)])
def test_out_and_in_again_is_the_same_to_the_bit(
    kind: str, dtype: str, root: Path, fresh: Path, tmp_path: Path
) -> None:
    form = "safetensors" if kind == "stacked" else kind
    wanted = Wanted("pets/fake/v1", prefix=True, dtype=dtype, channels="first" if dtype == "float32" else "last")
    export_version(
        root, ExportRequest(wanted, form, tmp_path / "out", None if form == "npy" or kind == "safetensors" else 4)
    )
    report = bring(fresh, tmp_path / "out")
    assert (report.imported, report.failed, report.unmatched, report.without) == (len(NAMES), 0, (), 0)
    assert report.variants == VARIANTS
    before, after = stored_maps(root), stored_maps(fresh)
    assert before.keys() == after.keys()
    for image_id, maps in before.items():
        for name in (*VARIANTS, PREFIX):
            assert maps[name].tobytes() == after[image_id][name].tobytes(), (image_id, name)
    assert not verify_store(fresh).damage
    columns = "SELECT sha256, checksum_raw, checksum_clean, checksum_residual FROM stored ORDER BY 1"
    assert rows(root, columns) == rows(fresh, columns)


def test_the_trees_of_the_original_become_a_version_to_train_on(fresh: Path, tmp_path: Path) -> None:
    done_here = originals(tmp_path / "voc", [f"data/pets/{name}" for name in PLAIN])
    report = bring(fresh, done_here, "dinov2_b", facts={"input": [48, 64]})
    assert (report.format, report.version, report.variants) == ("dvt", "pets/dinov2_b/v1", ("raw", "clean"))
    assert (report.imported, report.failed, report.without) == (len(PLAIN), 0, len(NAMES) - len(PLAIN))
    for image_id, maps in stored_maps(fresh, ("raw", "clean")).items():
        np.testing.assert_array_equal(maps["raw"], planted(f"data/pets/{image_id}").astype(np.float16))
        np.testing.assert_array_equal(maps["clean"], planted(f"data/pets/{image_id}", 0.5).astype(np.float16))
    data = FeatureDataset(fresh, "pets", backbone="dinov2_b", variants=("raw", "clean"), image=True, verify=True)
    assert data.image_ids == sorted(PLAIN)
    item = data[0]
    assert item["raw"].shape == (WIDTH, *GRID)
    assert item["image"].shape == (3, 48, 64)
    recipe = data.recipe
    assert recipe["method"] == {"name": "imported", "grid": [3, 4], "channels": 6, "prefix_tokens": 0}
    assert recipe["backbone"] == {"id": MODEL, "input": [48, 64]}
    assert Recipe.of({k: v for k, v in recipe.items() if k != "format"}).digest == report.digest
    norms = [np.linalg.norm(planted(f"data/pets/{name}"), axis=-1) for name in sorted(PLAIN)]
    told = rows(fresh, "SELECT norm_min, norm_max, cos_raw_clean FROM stored ORDER BY image_id")
    np.testing.assert_allclose([row[:2] for row in told], [(n.min(), n.max()) for n in norms], rtol=1e-3)
    np.testing.assert_allclose([row[2] for row in told], 1, atol=1e-3)


def test_what_is_stored_is_never_stored_again_and_new_files_are(fresh: Path, tmp_path: Path) -> None:
    folder = originals(tmp_path / "voc", PLAIN[:2])
    first = bring(fresh, folder, "b")
    originals(folder, PLAIN)
    second = bring(fresh, folder, "b")
    third = bring(fresh, folder, "b")
    assert [report.imported for report in (first, second, third)] == [2, 3, 0]
    assert [report.present for report in (first, second, third)] == [0, 2, 5]
    assert first.version == second.version == third.version
    assert rows(fresh, "SELECT count(*) FROM shards") == [(2,)]


def test_other_features_of_the_same_description_are_not_mixed_in(fresh: Path, tmp_path: Path) -> None:
    bring(fresh, originals(tmp_path / "one", PLAIN), "b")
    for name in PLAIN:
        write(tmp_path / "two" / "raw_features" / MODEL / f"{name[:-4]}.npy", planted(name, 2.0))
        write(tmp_path / "two" / "denoised_features" / MODEL / f"{name[:-4]}.npy", planted(name, 3.0))
    with pytest.raises(InputError, match=r"stored already under the same description: say with --note"):
        bring(fresh, tmp_path / "two", "b")
    assert bring(fresh, tmp_path / "two", "b", note="trained for longer").version == "pets/b/v2"
    assert {row[0] for row in rows(fresh, "SELECT method FROM versions")} == {"imported"}


def test_imported_features_are_never_taken_for_computed_ones(root: Path, tmp_path: Path) -> None:
    store = shutil.copytree(root, tmp_path / "store")
    export_version(store, ExportRequest(Wanted("pets/fake/v1"), "npy", tmp_path / "out"))
    report = bring(store, tmp_path / "out")
    assert (report.version, report.imported) == ("pets/fake/v2", len(NAMES))
    recipe = json.loads(rows(store, "SELECT recipe FROM versions WHERE number = 2")[0][0])
    computed = rows(store, "SELECT digest FROM versions WHERE number = 1")[0][0]
    assert recipe["method"]["of"] == computed != report.digest
    assert recipe["method"]["origin"] == {"name": "stage1", "scale": 1.0}


def test_what_matches_nothing_is_listed_and_what_cannot_be_read_is_a_failure(fresh: Path, tmp_path: Path) -> None:
    folder = originals(tmp_path / "voc", [*PLAIN, "elsewhere/9.png", "1.png"])
    raw = folder / "raw_features" / MODEL
    (raw / "cats" / "1.npy").write_bytes((raw / "cats" / "1.npy").read_bytes()[:200])
    (raw / "cats" / "2.npy").unlink()
    write(raw / "dogs" / "1.npy", planted("x")[:2])
    write(raw / "dogs" / "2.npy", np.full((*GRID, WIDTH), np.nan, np.float32))
    said = call("import", folder, "--name", "pets", "--backbone", "b", "--json", "--root", fresh)
    assert said.code == 3
    report = json.loads(said.out)
    assert (report["imported"], report["failed"], report["found"]) == (1, 4, 7)
    assert report["unmatched"] == [
        {"name": "1", "reason": "fits cats/1.png and dogs/1.png alike"},
        {"name": "elsewhere/9", "reason": "no image has this name"},
    ]
    reasons = dict(rows(fresh, "SELECT image_id, error FROM failures"))
    assert reasons["cats/1.png"].startswith("1.npy is no whole .npy file")
    assert reasons["cats/2.png"] == "cats/2 has no raw"
    assert reasons["dogs/1.png"] == "raw of dogs/1 is (2, 4, 6), and (3, 4, 6) of most others"
    assert "NaN" in reasons["dogs/2.png"]
    originals(folder, PLAIN)
    assert bring(fresh, folder, "b").imported == 3  # what could not be read is tried again, what made no sense is not


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (lambda values: values, {}),
        (lambda values: values[None].astype(np.float64), {}),
        (lambda values: values.transpose(2, 0, 1), {"channels": "first"}),
        (lambda values: values.reshape(-1, WIDTH), {"grid": GRID}),
        (lambda values: values.reshape(1, -1, WIDTH).astype(np.float16), {"grid": GRID}),
        (lambda values: values.reshape(-1, WIDTH).T, {"grid": GRID, "channels": "first"}),
    ],
)
def test_plain_files_in_the_shapes_people_have(change: Any, options: Any, fresh: Path, tmp_path: Path) -> None:
    for name in PLAIN:
        write(tmp_path / "plain" / f"{name}.npy", change(planted(name)))
    assert bring(fresh, tmp_path / "plain", "b", variants=("raw",), **options).imported == len(PLAIN)
    for image_id, maps in stored_maps(fresh, ("raw",)).items():
        np.testing.assert_array_equal(maps["raw"], planted(image_id).astype(np.float16))


def test_errors_say_what_to_do(fresh: Path, tmp_path: Path) -> None:
    folder = originals(tmp_path / "voc", PLAIN)
    originals(folder, PLAIN, "other_model")
    write(tmp_path / "plain" / "cats" / "1.npy", planted("x"))
    write(tmp_path / "tokens" / "cats" / "1.npy", planted("x").reshape(-1, WIDTH))
    write(tmp_path / "whole" / "cats" / "1.npy", np.ones((*GRID, WIDTH), np.int64))
    write(tmp_path / "alien" / "raw" / "nobody.npy", planted("x"))
    (tmp_path / "nothing").mkdir()
    wrong: list[tuple[Any, type[FeatstoreError], str]] = [
        ((folder, "b"), InputError, f"holds features of other_model, {MODEL}: say which with --model"),
        ((tmp_path / "plain", "b"), InputError, "--variants raw or --variants clean"),
        ((tmp_path / "alien", "b"), InputError, "no image of pets matches; nobody: no image has this name"),
        ((tmp_path / "alien",), InputError, "no image of pets matches"),
        ((tmp_path / "nothing", "b"), InputError, "no featstore.json of an export, no raw_features and no .npy file"),
        ((tmp_path / "missing", "b"), SourceError, "there is no folder"),
    ]
    for arguments, error, words in wrong:
        with pytest.raises(error, match=words):
            bring(fresh, *arguments)
    with pytest.raises(InputError, match="say with --backbone which model"):
        bring(fresh, tmp_path / "plain", variants=("raw",))
    with pytest.raises(InputError, match=r"raw is \(12, 6\), not .* --grid 37x37 says"):
        bring(fresh, tmp_path / "tokens", "b", variants=("raw",))
    with pytest.raises(InputError, match="raw is int64: features are floating-point"):
        bring(fresh, tmp_path / "whole", "b", variants=("raw",))
    with pytest.raises(NotInStoreError, match="no data set 'cows' here"):
        import_version(fresh, ImportRequest(folder, "cows", "b"))
    assert rows(fresh, "SELECT count(*) FROM versions") == [(0,)]


def test_names_match_by_their_ends_and_bytes_by_their_digest() -> None:
    images = [
        Image("2007_000027", "VOC2012/JPEGImages/2007_000027.jpg", "a"),
        Image("VOC2007/000005", "VOC2007/JPEGImages/000005.jpg", "b"),
        Image("VOC2012/000005", "VOC2012/JPEGImages/000005.jpg", "c"),
        Image("x.tar.png", "/else/where/x.tar.png", "d"),
    ]
    names = {
        "2007_000027": "a",
        "data/VOCdevkit/VOC2012/JPEGImages/2007_000027": "a",
        "VOC2007/JPEGImages/000005": "b",
        "VOC2012/000005": "c",
        "where/x.tar": "d",
        "x.tar.png": "d",
    }
    for name, sha256 in names.items():
        found, left = match([Entry(name, name)], images)
        assert (list(found), left) == ([sha256], []), name
    for name in ("000005", "VOC2008/JPEGImages/000005", "007_000027", "x"):
        found, left = match([Entry(name, name)], images)
        assert not found
        assert len(left) == 1
    found, left = match([Entry("n", 1, "2007_000027", "z"), Entry("n", 2, "other", "b")], images)
    assert list(found) == ["b"]
    assert left[0].reason == "the image has other bytes here"
    twice = [Entry("2007_000027", 1), Entry("JPEGImages/2007_000027", 2)]
    found, left = match(twice, images)
    assert (found["a"].place, left[0].name) == (2, "2007_000027")


def test_an_import_that_is_killed_goes_on(fresh: Path, tmp_path: Path) -> None:
    folder = originals(tmp_path / "voc", PLAIN)
    whole = shutil.copytree(fresh, tmp_path / "whole")
    script = Path(__file__).parent / "support" / "import_worker.py"
    worker = subprocess.Popen([sys.executable, script, str(fresh), str(folder)], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    for line in worker.stdout:
        if line.startswith("sealed"):
            break
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    report = bring(fresh, folder, "b", shard_size=1)
    assert 0 < report.present < len(PLAIN)
    assert report.present + report.imported == len(PLAIN)
    bring(whole, folder, "b", shard_size=1)
    assert shards(fresh) == shards(whole)


def shards(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.h5")}


def test_the_command_line(root: Path, fresh: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done("export", "pets/fake/v1", "--format", "dvt", "--output", out, "--where", "label = 'cats'", "--root", root)
    planned = json.loads(done("import", out, "--name", "pets", "--dry-run", "--json", "--root", fresh).out)
    assert (planned["imported"], planned["version"]) == (3, None)
    said = done("import", out, "--name", "pets", "--compress", "gzip", "--root", fresh)
    assert "pets/fake/v1 from dvt: imported 3 images, 0 failed" in said.out
    assert "8 images of pets: the folder has nothing of them" in said.out
    listed = done("ls", "--root", fresh).out
    assert "imported" in listed
    provenance = json.loads(done("show", "pets/fake/v1", "--json", "--root", fresh).out)["provenance"]
    assert provenance["command"]  # as this process was called, which may be pytest's
    assert provenance["reproduce"] == f"featstore import {out} --name pets --compress gzip"


@pytest.mark.slow
def test_a_denoiser_learns_the_same_from_what_went_out_and_came_back(trained: Path, tmp_path: Path) -> None:
    root = shutil.copytree(trained, tmp_path / "store")
    done("export", "pets/test_vit/v1", "--format", "dvt", "--output", tmp_path / "out", "--root", root)
    (tmp_path / "out" / "featstore.json").unlink()  # as the original code would have left it
    said = done("import", tmp_path / "out", "--name", "pets", "--backbone", "test_vit", "--json", "--root", root)
    version = json.loads(said.out)["version"].rpartition("/")[2]
    for name in ("v1", version):
        done("train", "pets", *TRAIN, "--steps", 6, "--start", "random", "--version", name, "--root", root)
    known = rows(root, "SELECT digest, trained_on FROM denoisers WHERE number > 1 ORDER BY number")
    assert len(known) == 2
    assert known[0][0] == known[1][0]
    assert known[0][1] != known[1][1]


def test_imported_raw_features_are_cleaned(trained: Path, tmp_path: Path) -> None:
    root = shutil.copytree(trained, tmp_path / "store")
    done(
        "export",
        "pets/test_vit/v2",
        "--format",
        "npy",
        "--output",
        tmp_path / "out",
        "--variants",
        "raw",
        "--root",
        root,
    )
    arguments = ("--name", "pets", "--backbone", "test_vit", "--variants", "raw", "--json")
    said = done("import", tmp_path / "out" / "raw", *arguments, "--root", root)
    version = json.loads(said.out)["version"]
    one = json.loads(done("denoise", version, "--denoiser", "d1", "--device", "cpu", "--json", "--root", root).out)
    two = json.loads(
        done("denoise", "pets/test_vit/v2", "--denoiser", "d1", "--device", "cpu", "--json", "--root", root).out
    )
    maps = [stored_maps(root, ("clean",), made["version"]) for made in (one, two)]
    assert maps[0].keys() == maps[1].keys()
    for image_id in maps[0]:
        np.testing.assert_array_equal(maps[0][image_id]["clean"], maps[1][image_id]["clean"])
