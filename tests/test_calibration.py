"""The artifact of a denoiser that brings none: the mean over a sample, taken once and kept."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from denoisers import published, reference
from numpy.typing import NDArray
from tinystore import MODEL, Said, call, done, photographs, rows, stored

from featstore.calibration import sample_images, sample_raw

FEW = 4  # images in the sample, of ten


@pytest.fixture
def root(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of ten images, whose data set is the test's own, with raw features in v2; the sample is small."""
    for function in (sample_images, sample_raw):
        monkeypatch.setattr(function, "__defaults__", (FEW,))
    shutil.copytree(trained.parent, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "store" / ".calibrations", ignore_errors=True)  # what other tests' dry runs have kept
    done("index", "pets", "--source", tmp_path / "pets", "--root", tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A denoiser in the layout of the published ones, which tell of no artifact."""
    torch.save({"denoiser": published(64, (4, 4))}, tmp_path / "voc.pth")
    return tmp_path / "voc.pth"


def build(root: Path, file: Path, *arguments: object) -> dict[str, Any]:
    words = ("build", "pets", *MODEL, "--denoiser", file, "--json", "--root", root, *arguments)
    report: dict[str, Any] = json.loads(done(*words).out)
    return report


def denoise(root: Path, file: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(done("denoise", "v2", "--denoiser", file, "--json", "--root", root).out)
    return report


def expected(root: Path, left_out: tuple[str, ...] = (), count: int = FEW) -> NDArray[np.float64]:
    """The mean of raw − clean over the first images by SHA-256, less its mean over positions, written out."""
    order = rows(root, "SELECT image_id FROM current_images WHERE dataset = 'pets' ORDER BY sha256")
    maps = stored(root, "v2", "raw")
    chosen = [maps[name]["raw"] for (name,) in order[:count] if name not in left_out]
    raw = torch.from_numpy(np.stack(chosen).astype(np.float64))
    mean = (raw - reference(published(64, (4, 4)), raw, (4, 4))).mean(dim=0).numpy()
    return mean - mean.mean(axis=(0, 1))


def kept(root: Path) -> Path:
    (path,) = (root / ".calibrations").iterdir()
    return path


def artifact_of(root: Path, version: str) -> NDArray[np.float16]:
    maps = [one["artifact"] for one in stored(root, version, "artifact").values()]
    assert all((one == maps[0]).all() for one in maps)
    return maps[0]


@pytest.mark.parametrize("way", ["build", "denoise"])
def test_it_is_the_mean_over_the_sample(root: Path, file: Path, way: str) -> None:
    truth = expected(root)
    assert np.abs(truth - expected(root, count=10)).max() > 0.05  # which images are in it matters
    words = ("build", "pets", *MODEL) if way == "build" else ("denoise", "v2")
    said = done(*words, "--denoiser", file, "--root", root)
    assert f"artifact: the mean of raw - clean over {FEW} images, kept in {kept(root).name}" in said.err
    assert "denoiser voc.pth" in said.err
    # A raw feature that another batch size moves by a bit before it is rounded to float16 moves by 1/1024 of itself.
    np.testing.assert_allclose(np.load(kept(root)), truth, atol=2e-3 if way == "build" else 1e-5)
    np.testing.assert_allclose(artifact_of(root, "v3"), truth, rtol=2.0**-10, atol=2e-3)


def test_images_added_later_do_not_move_it(root: Path, file: Path, tmp_path: Path) -> None:
    first = build(root, file)
    before = kept(root).read_bytes()
    photographs(tmp_path / "pets", range(30, 36))
    done("index", "pets", "--root", root)
    done("build", "pets", *MODEL, "--method", "raw", "--root", root)
    assert np.abs(expected(root) - np.load(kept(root))).max() > 0.05  # taken now it would be another
    second = build(root, file)
    assert (second["digest"], second["version"]) == (first["digest"], "v3")
    assert (second["present"], second["computed"]) == (10, 6)
    assert denoise(root, file)["digest"] == first["digest"]  # nor does the way
    assert kept(root).read_bytes() == before
    kept(root).unlink()  # now it is taken of what is there now
    assert build(root, file)["version"] == "v4"
    np.testing.assert_allclose(np.load(kept(root)), expected(root), atol=2e-3)


def test_a_damaged_file_is_told_and_made_again_once_removed(root: Path, file: Path) -> None:
    first = denoise(root, file)
    whole = kept(root).read_bytes()
    denoising = ("denoise", "v2")
    for damaged, words in (
        (b"", denoising),
        (b"no array at all", denoising),
        (whole[:-100], denoising),
        (whole[:100], ("build", "pets", *MODEL)),
    ):
        kept(root).write_bytes(damaged)
        said: Said = call(*words, "--denoiser", file, "--root", root)
        assert (said.code, said.out) == (1, "")
        assert said.err == f"error: {kept(root)} is damaged: remove it, and it is made again\n"
    kept(root).unlink()
    assert denoise(root, file)["digest"] == first["digest"]
    assert kept(root).read_bytes() == whole


def test_what_cannot_be_read_is_left_out_of_it_and_told_by_the_build(root: Path, file: Path, tmp_path: Path) -> None:
    first, second, *_ = [row[0] for row in rows(root, "SELECT image_id FROM current_images ORDER BY sha256")]
    truth = expected(root, left_out=(first, second))
    other = Path(shutil.copytree(root, tmp_path / "other"))
    (tmp_path / "pets" / first).unlink()
    (tmp_path / "pets" / second).write_bytes(b"another file since")
    said = call("build", "pets", *MODEL, "--denoiser", file, "--root", root)
    assert (said.code, "8 images computed, 0 there before, 2 failed" in said.out) == (3, True)
    np.testing.assert_allclose(np.load(kept(root)), truth, atol=2e-3)

    for name in (first, second):
        ((path, row),) = rows(
            other, f"SELECT shard, shard_row FROM stored WHERE version = 'v2' AND image_id = '{name}'"
        )
        with h5py.File(other / path) as shard:
            place = shard["raw"].id.get_chunk_info(row).byte_offset
        data = bytearray((other / path).read_bytes())
        data[place] ^= 1
        (other / path).write_bytes(data)
    said = call("denoise", "v2", "--denoiser", file, "--root", other)
    assert (said.code, "8 images computed, 0 there before, 2 failed" in said.out) == (3, True)
    np.testing.assert_allclose(np.load(kept(other)), truth, atol=1e-5)


def test_where_no_image_can_be_read_nothing_is_kept(root: Path, file: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "pets")
    said = call("build", "pets", *MODEL, "--denoiser", file, "--root", root)
    assert said.code == 1
    assert said.err == "error: there is no image to take the artifact's mean over\n"
    assert not (root / ".calibrations").exists()


def test_a_dry_run_takes_it_and_keeps_it_for_the_build(root: Path, file: Path) -> None:
    told = []
    for words in (("build", "pets", *MODEL), ("denoise", "v2")):
        command = (*words, "--denoiser", file, "--dry-run", "--root", root)
        assert f"over {FEW} images, kept in " in done(*command).err
        assert "over" not in done(*command).err
        told.append(json.loads(done(*command, "--json").out))
        shutil.rmtree(root / ".calibrations")
    assert denoise(root, file)["digest"] == told[1]["digest"]
    assert {plan["to_compute"] for plan in told} == {10}


def test_one_trained_here_brings_its_own(root: Path, file: Path) -> None:
    ((path, digest),) = rows(root, "SELECT path, digest FROM denoisers")
    named = denoise(root, root / path)  # by its file, as another store would
    assert not (root / ".calibrations").exists()
    assert json.loads((Path(named["folder"]) / "recipe.json").read_text())["method"]["denoiser"] == digest
    denoise(root, file)
    assert kept(root).is_file()


def test_every_denoiser_has_one_for_every_kind_of_features(root: Path, file: Path, tmp_path: Path) -> None:
    torch.save({"denoiser": published(64, (4, 4), seed=1)}, tmp_path / "imgnet.pth")
    small = ("--input-size", "48")
    for name, more in ((file, ()), (tmp_path / "imgnet.pth", ()), (file, small)):
        build(root, name, *more)
    shapes = sorted(np.load(path).shape for path in (root / ".calibrations").iterdir())
    assert shapes == [(3, 3, 64), (4, 4, 64), (4, 4, 64)]
    versions = rows(root, "SELECT count(DISTINCT digest) FROM versions WHERE method = 'stage2'")
    assert versions == [(3,)]


def test_the_sample_is_the_first_by_their_bytes(root: Path) -> None:
    order = [row[0] for row in rows(root, "SELECT sha256 FROM current_images ORDER BY sha256")]
    assert [image.sha256 for image in sample_images(root, "pets", 6)] == order[:6]
    assert [image.sha256 for image in sample_images(root, "pets", 99)] == order
    names = [row[0] for row in rows(root, "SELECT image_id FROM current_images ORDER BY sha256")]
    maps = stored(root, "v2", "raw")
    for name, found in zip(names[:6], sample_raw(root, "pets", "test_vit", "v2", 6), strict=True):
        np.testing.assert_array_equal(found, maps[name]["raw"])
