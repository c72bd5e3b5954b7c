"""Stage 2 by either way, with the backbone and over stored raw features: the same version, and what is in it."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from denoisers import reference
from numpy.typing import NDArray
from safetensors.torch import load_file
from tinystore import MODEL, Arrays, Said, call, done, rows, stored

VARIANTS = ("raw", "clean", "artifact", "residual")
HALF = 2.0**-11  # how far rounding to float16 moves a number, as a share of it


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    """A copy of the store with a denoiser, the test's own."""
    return Path(shutil.copytree(trained, tmp_path / "store"))


@pytest.fixture(scope="module")
def cleaned(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which v3 is what `denoise` made of v2; tests only read it."""
    root = Path(shutil.copytree(trained, tmp_path_factory.mktemp("cleaned") / "store"))
    assert denoise(root)["version"] == "v3"
    return root


def build(root: Path, *arguments: object) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(
        done("build", "pets", *MODEL, "--method", "stage2", *arguments, "--json", "--root", root).out
    )
    return report


def denoise(root: Path, version: str = "v2", *arguments: object) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(done("denoise", version, *arguments, "--json", "--root", root).out)
    return report


def stacked(maps: Arrays, name: str) -> NDArray[np.float64]:
    return np.stack([one[name] for one in maps.values()]).astype(np.float64)


def shard_of(root: Path, image_id: str, version: str) -> tuple[Path, int]:
    ((path, row),) = rows(
        root, f"SELECT shard, shard_row FROM stored WHERE image_id = '{image_id}' AND version = '{version}'"
    )
    return root / path, int(row)


def test_with_the_backbone_or_without_it_is_the_same_version(root: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(root, tmp_path / "other"))
    one, two = build(root), denoise(other)
    for key in ("version", "digest", "method", "variants", "wanted", "computed", "failed"):
        assert one[key] == two[key]
    assert (one["version"], one["method"], one["computed"], one["failed"]) == ("v3", "stage2", 10, 0)
    texts = [(Path(report["folder"]) / "recipe.json").read_text() for report in (one, two)]
    assert texts[0] == texts[1]
    here, there = stored(root, "v3", *VARIANTS), stored(other, "v3", *VARIANTS)
    assert here.keys() == there.keys()
    assert len(here) == 10
    for name in VARIANTS:
        np.testing.assert_allclose(stacked(here, name), stacked(there, name), rtol=4 * HALF, atol=2e-3)
    np.testing.assert_array_equal(stacked(there, "raw"), stacked(stored(other, "v2", "raw"), "raw"))
    for command in (lambda: denoise(root), lambda: build(other), lambda: denoise(root, "v1")):
        again = command()
        assert (again["version"], again["computed"], again["present"]) == ("v3", 0, 10)


def test_clean_is_what_the_written_out_denoiser_gives_and_the_parts_add_up(cleaned: Path) -> None:
    maps = stored(cleaned, "v3", *VARIANTS)
    ((path,),) = rows(cleaned, "SELECT path FROM denoisers")
    state = load_file(cleaned / path)
    raw, clean, artifact, residual = (stacked(maps, name) for name in VARIANTS)
    expected = reference(state, torch.from_numpy(raw), (4, 4)).numpy()
    assert np.abs(expected - raw).mean() > 0.05  # it does something
    np.testing.assert_allclose(clean, expected, rtol=2 * HALF, atol=2e-4)
    np.testing.assert_allclose(clean + artifact + residual, raw, atol=HALF * np.abs(residual).max())
    assert (artifact == artifact[0]).all()
    np.testing.assert_allclose(artifact[0].mean(axis=(0, 1)), 0, atol=HALF * np.abs(artifact).max())
    mean = (raw - expected).mean(axis=0)
    np.testing.assert_allclose(artifact[0], mean - mean.mean(axis=(0, 1)), rtol=2 * HALF, atol=2e-4)


def test_figures_are_those_of_the_maps(cleaned: Path) -> None:
    raw, clean, artifact, residual = (stacked(stored(cleaned, "v3", *VARIANTS), name) for name in VARIANTS)
    cosine = (raw * clean).sum(-1) / (np.linalg.norm(raw, axis=-1) * np.linalg.norm(clean, axis=-1))
    spread = [maps.var(axis=(1, 2)).sum(axis=-1) for maps in (raw, artifact, residual)]
    expected = [cosine.mean(axis=(1, 2)), spread[1] / spread[0], spread[2] / spread[0]]
    sql = "SELECT cos_raw_clean, artifact_share, residual_share FROM stored WHERE version = 'v3' ORDER BY image_id"
    np.testing.assert_allclose(rows(cleaned, sql), np.stack(expected, axis=1), rtol=5e-3)


def test_prefix_tokens_are_carried_over(cleaned: Path) -> None:
    for (image_id,) in rows(cleaned, "SELECT image_id FROM current_images"):
        tokens = []
        for version in ("v2", "v3"):
            path, row = shard_of(cleaned, image_id, version)
            with h5py.File(path) as file:
                tokens.append(file["prefix_tokens"][row])
        assert tokens[0].shape == (1, 64)
        assert np.abs(tokens[0]).sum() > 0
        np.testing.assert_array_equal(tokens[0], tokens[1])


def test_a_damaged_raw_map_fails_alone(root: Path) -> None:
    path, row = shard_of(root, "004.png", "v2")
    with h5py.File(path) as file:
        place = file["raw"].id.get_chunk_info(row).byte_offset + 77
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)
    said = call("denoise", "v2", "--root", root)
    assert said.code == 3
    assert "9 images computed, 0 there before, 1 failed" in said.out
    ((image_id, step, error),) = rows(root, "SELECT image_id, step, error FROM failures")
    assert (image_id, step) == ("004.png", "read")
    assert "raw of row" in error
    assert "is not what was written" in error
    whole = stored(root, "v3", "clean")
    assert sorted(whole) == [f"{number:03d}.png" for number in range(10) if number != 4]
    data[place] ^= 0x10
    path.write_bytes(data)
    assert denoise(root)["computed"] == 1  # what is mended is cleaned the next time
    assert rows(root, "SELECT count(*) FROM failures") == [(0,)]


def test_where_limit_and_variants_choose(root: Path) -> None:
    report = denoise(root, "v2", "--where", "image_id >= '003.png'", "--limit", 4, "--variants", "clean")
    assert (report["wanted"], report["computed"], report["variants"]) == (4, 4, ["clean"])
    found = stored(root, "v3", "clean")
    assert sorted(found) == ["003.png", "004.png", "005.png", "006.png"]
    with h5py.File(next(Path(report["folder"]).glob("*.h5"))) as file:
        assert not {"raw", "artifact", "residual"} & set(file)
    rest = denoise(root, "v2", "--variants", "clean")
    assert (rest["version"], rest["present"], rest["computed"]) == ("v3", 4, 6)
    everything = denoise(root)
    assert (everything["version"], everything["computed"]) == ("v3", 10)
    np.testing.assert_array_equal(
        stacked({name: stored(root, "v3", "clean")[name] for name in found}, "clean"), stacked(found, "clean")
    )


def test_dry_run_says_what_then_happens_and_writes_nothing(root: Path) -> None:
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    told = json.loads(done("denoise", "v2", "--dry-run", "--json", "--root", root).out)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert (told["method"], told["to_compute"], told["present"]) == ("stage2", 10, 0)
    assert told["bytes"] == 10 * 2 * 64 * (4 * 16 + 1)
    assert told["seconds"] > 0
    report = denoise(root)
    assert (report["digest"], report["folder"]) == (told["digest"], told["folder"])
    assert json.loads(done("denoise", "v2", "--dry-run", "--json", "--root", root).out)["to_compute"] == 0


@pytest.mark.slow
def test_two_worker_processes_make_the_store_of_one(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copytree(root, tmp_path / "other"))
    threads = torch.get_num_threads()
    try:
        one, two = build(root, "--shard-size", 3), build(other, "--shard-size", 3, "--device", "cpu,cpu")
    finally:
        torch.set_num_threads(threads)
    for key in ("version", "digest", "computed", "failed", "shards", "variants"):
        assert one[key] == two[key]
    assert one["shards"] == 4
    here, there = stored(root, "v3", *VARIANTS), stored(other, "v3", *VARIANTS)
    for name in VARIANTS:  # fewer threads may round the last bit elsewhere
        np.testing.assert_allclose(stacked(here, name), stacked(there, name), rtol=4 * HALF, atol=2e-3)
    ids = "SELECT image_id, shard, shard_row FROM stored WHERE version = 'v3' ORDER BY 1"
    assert rows(root, ids) == rows(other, ids)


def refused(*arguments: object) -> Said:
    said = call(*arguments)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return said


def test_wrong_use_is_told_in_one_line(root: Path, tmp_path: Path) -> None:
    at = ("--root", root)
    assert "no version 'v9' in the store; there are: pets/test_vit/v1" in refused("denoise", "v9", *at).err
    assert "there are: pets/test_vit/d1" in refused("denoise", "v2", "--denoiser", "d7", *at).err
    assert "no denoiser file gone.pth" in refused("denoise", "v2", "--denoiser", "gone.pth", *at).err
    assert "nonsense" in refused("denoise", "v2", "--where", "nonsense > 1", *at).err
    assert "does not give 'clean_fine'" in refused("denoise", "v2", "--variants", "clean_fine", *at).err
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    assert "broken.safetensors" in refused("denoise", "v2", "--denoiser", tmp_path / "broken.safetensors", *at).err
    none = refused("denoise", "v2", "--where", "width > 1000", *at).err
    assert "pets/test_vit/v2 stores no raw map of images that this leaves" in none
    denoise(root, "v2", "--variants", "clean")
    assert "pets/test_vit/v3 stores no raw map" in refused("denoise", "v3", *at).err
    other = ("build", "pets", *MODEL[:4], "--input-size", 48, "--device", "cpu", "--method", "raw", *at)
    done(*other)
    told = refused("denoise", "v4", *at).err
    assert "no denoiser for these features of test_vit is at hand (pets/test_vit/d1 is of another input): " in told
    assert "featstore train pets --backbone test_vit makes one" in told


def test_a_denoiser_of_another_input_size_may_be_named(root: Path) -> None:
    done("build", "pets", *MODEL[:4], "--input-size", 96, "--device", "cpu", "--method", "raw", "--root", root)
    report = denoise(root, "v3", "--denoiser", "d1")
    maps = stored(root, report["version"], *VARIANTS)
    ((path,),) = rows(root, "SELECT path FROM denoisers")
    raw = stacked(maps, "raw")
    assert raw.shape == (10, 6, 6, 64)
    expected = reference(load_file(root / path), torch.from_numpy(raw), (4, 4)).numpy()
    np.testing.assert_allclose(stacked(maps, "clean"), expected, rtol=2 * HALF, atol=2e-4)
    mean = (raw - expected).mean(axis=0)  # of these features, not of those that it was trained on
    np.testing.assert_allclose(stacked(maps, "artifact")[0], mean - mean.mean(axis=(0, 1)), rtol=2 * HALF, atol=2e-4)
