"""The artifact pooled over a version, from the store to the solver."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeDecomposer, expected_artifact, make_folder

from dvt import Backbone, crops_anywhere, raw_of
from featstore.build import build_version
from featstore.cli import method, progress
from featstore.cli.main import main
from featstore.dataset import FeatureDataset
from featstore.errors import InputError, NotInStoreError
from featstore.images import decode
from featstore.index import index_dataset
from featstore.plan import Request
from featstore.pooled import pool_artifact
from featstore.query import restricted


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


def test_the_pooled_artifact_is_the_mean_over_the_images(tmp_path: Path) -> None:
    index_dataset(tmp_path / "store", "pets", make_folder(tmp_path / "pets"))
    build_version(tmp_path / "store", Request("pets", "fake"), FakeDecomposer())
    pooled = pool_artifact(tmp_path / "store", "pets/fake/v1")
    assert pooled.images == 6
    assert pooled.version == "pets/fake/v1"
    np.testing.assert_allclose(pooled.mean, expected_artifact(), atol=2e-3)
    with pytest.raises(NotInStoreError, match="no version"):
        pool_artifact(tmp_path / "store", "v9")


def test_a_build_starts_from_it_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_folder(tmp_path / "pets", count=3)
    root = ("--root", str(tmp_path / "store"))
    model = ("--backbone", "vit_tiny_patch16_224", "--weights", "random", "--input-size", "64", "--device", "cpu")
    few = ("--views", "3", "--holdout", "1", "--artifact-prior", "none")
    assert (
        call(
            "build",
            "pets",
            "--source",
            str(tmp_path / "pets"),
            *root,
            *model,
            "--views",
            "12",
            "--holdout",
            "1",
            "--artifact-prior",
            "none",
        )
        == 0
    )
    assert call("build", "pets", *root, *model, *few) == 0
    capsys.readouterr()
    assert call("build", "pets", *root, *model, *few, "--artifact-prior", "v1", "--json") == 0
    assert "artifact prior: the mean over 3 images of pets/vit_tiny_patch16_224/v1" in capsys.readouterr().err
    first, alone, helped = (
        FeatureDataset(tmp_path / "store", "pets", backbone="vit_tiny_patch16_224", variants="artifact", version=name)
        for name in ("v1", "v2", "v3")
    )
    assert "prior" in helped.recipe["method"]
    assert "prior" not in alone.recipe["method"]
    mean = np.mean([first[i]["artifact"].float().numpy() for i in range(3)], axis=0)

    def distance(found: FeatureDataset) -> float:
        return float(np.mean([np.square(found[i]["artifact"].float().numpy() - mean).mean() for i in range(3)]))

    assert distance(helped) < 0.5 * distance(alone)
    assert (
        call(
            "build", "pets", *root, *model[:-4], "--input-size", "48", "--device", "cpu", *few, "--artifact-prior", "v1"
        )
        == 1
    )
    assert "is no prior" in capsys.readouterr().err
    assert call("build", "pets", *root, *model, "--faithful", "--artifact-prior", "v1") == 1
    assert "needs --method stage1, and not --faithful" in capsys.readouterr().err


def test_a_build_measures_it_once_and_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(method, "LEAST", 8)
    monkeypatch.setattr(method, "EACH", 1)
    folder = make_folder(tmp_path / "pets", count=3)
    root = ("--root", str(tmp_path / "store"))
    model = ("--backbone", "vit_tiny_patch16_224", "--weights", "random", "--input-size", "32", "--device", "cpu")
    build = ("build", "pets", *root, *model, "--views", "3", "--artifact-prior", "measure")
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    assert call(*build, "--source", str(folder), "--dry-run") == 0
    told = capsys.readouterr().err
    assert "measuring the artifact prior: 2/3 images" in told
    assert "the mean over 9 crops of 3 images, kept in " in told  # so that the build need not measure
    assert call(*build) == 0
    assert "the mean over" not in capsys.readouterr().err
    (kept,) = tmp_path.rglob("*.npy")
    values = np.load(kept)

    backbone = Backbone.create("vit_tiny_patch16_224", weights="random", input_size=(32, 32), device="cpu")
    images = sorted(
        (path.read_bytes() for path in folder.rglob("*.png")), key=lambda data: hashlib.sha256(data).digest()
    )
    crops = [crop for n, data in enumerate(images) for crop in crops_anywhere(decode(data), str(n), 3, backbone)]
    plain = raw_of(backbone, crops)[0].double().mean(dim=0)
    np.testing.assert_allclose(values, plain - plain.mean(dim=(0, 1)), atol=1e-5)
    version = FeatureDataset(tmp_path / "store", "pets", backbone="vit_tiny_patch16_224")
    assert version.recipe["method"]["prior"] == hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()

    make_folder(folder / "more", count=1)  # a new image does not move it
    assert call("index", "pets", *root) == 0
    capsys.readouterr()
    assert call(*build) == 0
    assert f"artifact prior: kept in {kept.name}" in capsys.readouterr().err
    assert np.array_equal(np.load(kept), values)
    assert call(*build[:-1], "measure", "--faithful") == 1


def test_it_is_measured_unasked_and_what_few_images_gave_is_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(method, "CROPS", 8)
    monkeypatch.setattr(method, "LEAST", 3)
    monkeypatch.setattr(method, "EACH", 2)
    root = ("--root", str(tmp_path / "store"))
    model = ("--backbone", "vit_tiny_patch16_224", "--weights", "random", "--input-size", "32", "--device", "cpu")

    def prior_of(name: str, *more: str) -> object:
        capsys.readouterr()
        assert call("build", name, *root, *model, "--method", "stage1", "--views", "3", *more, "--json") == 0
        folder = Path(json.loads(capsys.readouterr().out)["folder"])
        return json.loads((folder / "recipe.json").read_text())["method"].get("prior")

    def kept(pattern: str) -> list[str]:
        files = sorted((tmp_path / "store" / ".calibrations").glob(pattern))
        return [hashlib.sha256(np.load(path).astype("<f4").tobytes()).hexdigest() for path in files]

    two = ("--source", str(make_folder(tmp_path / "two", count=2)))
    field = ("--solver", "field", "--iterations", "2")
    assert prior_of("two", *two, *field, "--artifact-prior", "none") is None
    assert prior_of("two", "--artifact-prior", "none") is None
    assert prior_of("two", "--faithful", "--iterations", "2", "--crop-input", "32") is None
    assert not kept("*")
    few = prior_of("two")  # 4 crops
    assert prior_of("two", *field) == few
    assert kept("*.npy") == kept("few-*.npy") == [few]
    many = prior_of("four", "--source", str(make_folder(tmp_path / "four", count=4)))  # 8 crops
    assert kept("anywhere-*.npy") == [many] != [few]
    make_folder(tmp_path / "two" / "more", count=4)
    assert call("index", "two", *root) == 0
    assert prior_of("two") == few  # what its features began from stays
    assert prior_of("one", "--source", str(make_folder(tmp_path / "one", count=1))) == many  # better than its own
    assert len(kept("*.npy")) == 2


def test_where_no_image_can_be_read_nothing_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_folder(tmp_path / "pets", count=1)
    picture = next(folder.rglob("*.png"))
    root = ("--root", str(tmp_path / "store"))
    assert call("index", "pets", "--source", str(folder), *root) == 0
    picture.write_bytes(b"changed since")
    model = ("--backbone", "vit_tiny_patch16_224", "--weights", "random", "--input-size", "32", "--device", "cpu")
    assert call("build", "pets", *root, *model, "--method", "stage1") == 3
    assert "no artifact prior: no image can be read" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.npy"))


def test_an_empty_version_is_told(tmp_path: Path) -> None:
    index_dataset(tmp_path / "store", "pets", make_folder(tmp_path / "pets", count=1))
    one = next((tmp_path / "pets").rglob("*.png"))
    one.write_bytes(b"changed since")
    build_version(tmp_path / "store", Request("pets", "fake"), FakeDecomposer())
    with pytest.raises((InputError, NotInStoreError)):
        pool_artifact(tmp_path / "store", "v1")


def test_the_mean_over_some_images_is_theirs_alone(tmp_path: Path) -> None:
    root = tmp_path / "store"
    index_dataset(root, "pets", make_folder(tmp_path / "pets", count=4))
    build_version(root, Request("pets", "fake"), FakeDecomposer())
    data = FeatureDataset(root, "pets", backbone="fake", variants=("artifact",))
    with restricted(root, "pets") as connection:
        shas = dict(connection.execute("SELECT image_id, sha256 FROM images").fetchall())
    some = data.image_ids[1:3]
    found = pool_artifact(root, "v1", {shas[name] for name in some})
    maps = [data[data.index(name)]["artifact"].permute(1, 2, 0).double().numpy() for name in some]
    np.testing.assert_allclose(found.mean, np.mean(maps, axis=0), atol=1e-6)
    assert found.images == 2
    assert pool_artifact(root, "v1").images == len(data)
    with pytest.raises(InputError, match="no image"):
        pool_artifact(root, "v1", {"0" * 64})
