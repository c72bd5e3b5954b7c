"""Methods beside DVT's own from the command line: four variants that add up, one recipe by every way, kept calibrations."""

import json
import shlex
import shutil
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from tinystore import MODEL, call, done, photographs, stored

METHODS = ("shift-mean", "position-mean", "rasa", "test-time-registers")
PARTS = ("raw", "clean", "artifact", "residual")
MORE = {"shift-mean": ("--views", 4), "rasa": ("--rasa-rounds", 2), "test-time-registers": ("--register-neurons", 3)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with v1 to v4, made by the four methods, and raw features in v5."""
    folder = tmp_path_factory.mktemp("neighbours")
    root = folder / "store"
    done("index", "pets", "--source", photographs(folder / "pets", range(20)), "--root", root)
    for method in METHODS:
        build = ("build", "pets", *MODEL, "--method", method, *MORE.get(method, ()), "--root", root)
        plan = json.loads(done(*build, "--dry-run", "--json").out)
        report = json.loads(done(*build, "--json").out)
        assert (report["method"], report["computed"], report["digest"]) == (method, 20, plan["digest"])
        assert json.loads(done(*build, "--json").out)["computed"] == 0
    done("build", "pets", *MODEL, "--method", "raw", "--root", root)
    return root


@pytest.mark.parametrize("version", ["v1", "v2", "v3", "v4"])
def test_four_variants_add_up_to_half_a_unit(root: Path, version: str) -> None:
    plain = stored(root, "v5", "raw")
    for name, maps in stored(root, version, *PARTS).items():
        raw, clean, artifact, residual = (maps[part].astype(np.float64) for part in PARTS)
        unit = np.spacing(np.abs(maps["residual"])).astype(np.float64)
        assert (np.abs(raw - clean - artifact - residual) <= unit / 2 + 1e-12).all()
        assert np.abs(artifact.mean(axis=(0, 1))).max() < 2e-3
        np.testing.assert_allclose(raw, plain[name]["raw"], rtol=2e-3, atol=4e-3)
    assert done("verify", f"pets/test_vit/{version}", "--root", root).code == 0


def test_position_mean_is_the_mean_of_raw_at_each_position(root: Path) -> None:
    raw = np.stack([maps["raw"] for maps in stored(root, "v5", "raw").values()]).astype(np.float64)
    expected = raw.mean(axis=0) - raw.mean(axis=(0, 1, 2))
    for maps in stored(root, "v2", *PARTS).values():
        np.testing.assert_allclose(maps["artifact"], expected, atol=4e-3)
        assert np.abs(maps["residual"]).max() < 4e-3


def test_rasa_leaves_nothing_along_its_directions(root: Path) -> None:
    (kept,) = (root / ".calibrations").glob("rasa-*.npy")
    packed = np.load(kept)
    along, means = packed[:-16], packed[-16:]
    assert 2 <= len(along) <= 4
    np.testing.assert_allclose(along @ along.T, np.eye(len(along)), atol=1e-5)
    for maps in stored(root, "v3", "clean").values():
        left = (maps["clean"].astype(np.float64) - means.mean(axis=0)) @ along.T
        assert np.abs(left).max() < 0.02


def test_without_outliers_clean_is_raw_and_it_is_said(root: Path) -> None:
    for maps in stored(root, "v4", *PARTS).values():
        assert (maps["raw"] == maps["clean"]).all()
        assert not maps["artifact"].any()
    said = done("build", "pets", *MODEL, "--method", "test-time-registers", "--register-neurons", 3, "--root", root)
    assert "no outlier tokens in the sample, so no register neurons: clean is raw" in said.err


@pytest.mark.parametrize("version", ["v1", "v2", "v3", "v4"])
def test_the_recorded_command_makes_the_same_version(root: Path, version: str) -> None:
    facts = json.loads(done("show", f"pets/test_vit/{version}", "--json", "--root", root).out)
    words = shlex.split(facts["provenance"]["reproduce"])
    plan = json.loads(done(*words[1:], "--device", "cpu", "--dry-run", "--json", "--root", root).out)
    assert (plan["digest"], plan["to_compute"]) == (facts["digest"], 0)
    schema = json.loads((files("featstore.schemas") / "recipe.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(facts["recipe"], schema)


@pytest.mark.slow
def test_a_version_says_which_calibration_it_used_and_later_images_do_not_move_it(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root.parent, tmp_path, dirs_exist_ok=True)
    root, build = tmp_path / "store", ("build", "pets", *MODEL, "--method", "position-mean", "--json", "--root")
    done("index", "pets", "--source", tmp_path / "pets", "--root", root)
    before = json.loads(done("show", "v2", "--json", "--root", root).out)
    photographs(tmp_path / "pets", range(30, 33))
    done("index", "pets", "--root", root)
    said = done(*build, root)
    report = json.loads(said.out)
    assert (report["digest"], report["computed"]) == (before["digest"], 3)
    assert "artifact: the mean of raw, kept in position-mean-" in said.err
    assert done("gc", "--root", root).code == 0
    assert {path.name.rsplit("-", 2)[0] for path in (root / ".calibrations").iterdir()} == {
        *("position-mean", "rasa", "register-neurons", "registers")
    }
    shutil.rmtree(root / ".calibrations")  # taken now it is that of other images, and so another version
    said = done(*build, root)
    assert json.loads(said.out)["digest"] != before["digest"]
    assert "taken of 23 images, kept in position-mean-" in said.err
    for version in range(1, 7):
        done("rm", f"pets/test_vit/v{version}", "--root", root)
    done("gc", "--root", root)
    assert not (root / ".calibrations").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rasa", "shift-mean"])
def test_worker_processes_make_the_same_bytes(method: str, root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "store")
    number = METHODS.index(method) + 1
    before = stored(root, f"v{number}", *PARTS)
    done("rm", f"v{number}", "--root", tmp_path / "store")
    done("gc", "--root", tmp_path / "store")
    build = ("build", "pets", *MODEL[:-1], "cpu,cpu", "--method", method, *MORE[method], "--shard-size", 8)
    done(*build, "--root", tmp_path / "store")
    again = stored(tmp_path / "store", f"v{number}", *PARTS)
    for name, maps in before.items():
        for part in PARTS:
            np.testing.assert_allclose(maps[part], again[name][part], atol=4e-3)


@pytest.mark.parametrize("method", METHODS)
def test_images_may_keep_their_shapes(method: str, root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "store")
    build = ("build", "pets", *MODEL, "--method", method, *MORE.get(method, ()), "--resize", "keep", "--limit", 1)
    build += ("--input-size", 128)
    report = json.loads(done(*build, "--json", "--root", tmp_path / "store").out)
    (maps,) = stored(tmp_path / "store", report["version"], *PARTS).values()
    assert maps["clean"].shape == maps["raw"].shape
    assert maps["raw"].shape[:2] != (8, 8)
    total = maps["clean"].astype(np.float64) + maps["artifact"] + maps["residual"]
    np.testing.assert_allclose(total, maps["raw"], atol=4e-3)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--method", "raw", "--views", "4"), "--views is of --method stage1 and shift-mean, not of raw: leave it out"),
        (
            ("--method", "shift-mean", "--smooth", "0.1"),
            "--smooth is of --method stage1, not of shift-mean: leave it out",
        ),
        (
            ("--method", "rasa", "--register-layer", "2"),
            "--register-layer is of --method test-time-registers, not of rasa",
        ),
        (
            ("--method", "position-mean", "--rasa-rounds", "2"),
            "--rasa-rounds is of --method rasa, not of position-mean",
        ),
        (("--rasa-rounds", "2", "--denoiser", "d1"), "--rasa-rounds is of --method rasa, not of stage2"),
    ],
)
def test_options_of_another_method_are_wrong_usage(root: Path, given: tuple[str, ...], told: str) -> None:
    said = call("build", "pets", *MODEL, *given, "--root", root)
    assert (said.code, told in said.err) == (2, True), said.err


def test_an_option_that_only_one_method_has_names_it(root: Path) -> None:
    for given, method in ((("--rasa-rounds", 2), "rasa"), (("--register-neurons", 3), "test-time-registers")):
        plan = json.loads(done("build", "pets", *MODEL, *given, "--dry-run", "--json", "--root", root).out)
        assert plan["method"] == method
