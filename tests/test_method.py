"""Which method a build takes without ``--method``, what it says of that, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
from tinystore import MODEL, TRAIN, Said, call, done, photographs, rows

STAGE1_LINE = "method stage1: the best at hand, since no denoiser for these features is trained yet"
STAGE2_LINE = "method stage2: the best at hand, since there is a denoiser for these features"
OTHER_INPUT = ("--backbone", "test_vit", "--weights", "random", "--input-size", "48", "--device", "cpu")


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of photographs alone."""
    folder = tmp_path_factory.mktemp("untrained")
    done("index", "pets", "--source", photographs(folder / "pets", range(2)), "--root", folder / "store")
    return folder / "store"


def plan(root: Path, *arguments: object, model: tuple[str, ...] = MODEL) -> tuple[str, str]:
    """Return the method that a build would take, and what it says of it."""
    line = done("build", "pets", *model, *arguments, "--dry-run", "--root", root)
    facts = json.loads(done("build", "pets", *model, *arguments, "--dry-run", "--json", "--root", root).out)
    assert f"\n{facts['method']}: " in f"\n{line.err}"
    return facts["method"], line.err


def refused(root: Path, *arguments: object, model: tuple[str, ...] = MODEL) -> str:
    before = rows(root, "SELECT count(*) FROM versions")
    said: Said = call("build", "pets", *model, *arguments, "--root", root)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert rows(root, "SELECT count(*) FROM versions") == before
    return said.err


def test_where_nothing_is_trained_it_is_stage_1_and_says_why(untrained: Path) -> None:
    method, said = plan(untrained)
    assert method == "stage1/lstsq"
    assert said.splitlines()[0] == STAGE1_LINE
    told = refused(untrained, "--method", "stage2")
    assert "no denoiser for these features of test_vit is at hand: featstore train pets --backbone test_vit" in told
    assert "--denoiser NAME" in told
    assert "'d1' is neither a file nor a denoiser of this store" in refused(untrained, "--denoiser", "d1")


def test_where_a_denoiser_of_these_features_is_it_is_stage_2_and_says_why(trained: Path) -> None:
    ((images,),) = rows(trained, "SELECT images FROM denoisers")
    method, said = plan(trained)
    assert method == "stage2"
    assert said.splitlines()[:2] == [STAGE2_LINE, f"denoiser pets/test_vit/d1, trained on {images} images"]


@pytest.mark.parametrize(
    ("given", "method"),
    [
        (("--views", "4"), "stage1/lstsq"),
        (("--views", "4", "--clean-grid", "8"), "stage1/lstsq"),
        (("--smooth", "0.1"), "stage1/lstsq"),  # given, though it is the default
        (("--method", "stage1"), "stage1/lstsq"),
        (("--method", "raw"), "raw"),
        (("--denoiser", "d1"), "stage2"),
        (("--method", "stage2", "--denoiser", "pets/test_vit/d1"), "stage2"),
    ],
)
def test_what_is_given_decides_and_needs_no_reason(trained: Path, given: tuple[str, ...], method: str) -> None:
    found, said = plan(trained, *given)
    assert found == method
    assert "the best at hand" not in said
    assert ("denoiser pets/test_vit/d1" in said) == (method == "stage2")


def test_a_denoiser_of_other_features_is_not_at_hand(trained: Path, tmp_path: Path) -> None:
    method, said = plan(trained, model=OTHER_INPUT)
    assert (method, said.splitlines()[0]) == ("stage1/lstsq", STAGE1_LINE)
    told = refused(trained, "--method", "stage2", model=OTHER_INPUT)
    assert "(pets/test_vit/d1 is of another input): featstore train" in told
    assert "trained on other features: weights" in refused(trained, "--denoiser", "d1", "--seed", "1")
    assert plan(trained, "--denoiser", "d1", model=OTHER_INPUT)[0] == "stage2"  # named, it does at another size
    root = Path(shutil.copytree(trained, tmp_path / "store"))
    next(root.rglob("denoiser.safetensors")).unlink()
    assert plan(root)[0] == "stage1/lstsq"
    assert "(pets/test_vit/d1 has lost its file): featstore train" in refused(root, "--method", "stage2")


@pytest.mark.parametrize("method", ["stage1", "raw"])
def test_a_denoiser_is_refused_by_other_methods(trained: Path, method: str) -> None:
    said = call("build", "pets", *MODEL, "--method", method, "--denoiser", "d1", "--root", trained)
    assert (said.code, said.err.splitlines()[-1]) == (
        2,
        f"Error: --denoiser is of --method stage2, not of {method}: leave it out",
    )


def test_the_newest_is_taken_for_another_data_set_too_and_stands_in_the_recipe(trained: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(trained, tmp_path / "store"))
    done("train", "pets", *TRAIN, "--steps", 20, "--rate", 0.05, "--seed", 1, "--root", root)
    done("index", "others", "--source", photographs(tmp_path / "others", range(20, 23)), "--root", root)
    report = json.loads(done("build", "others", *MODEL, "--json", "--root", root).out)
    assert (report["method"], report["version"], report["computed"]) == ("stage2", "v1", 3)
    recipe = json.loads((Path(report["folder"]) / "recipe.json").read_text())
    assert rows(root, "SELECT number, digest FROM denoisers ORDER BY 1")[1] == (2, recipe["method"]["denoiser"])
    named = json.loads(done("build", "others", *MODEL, "--denoiser", "pets/d1", "--json", "--root", root).out)
    assert named["version"] == "v2"
    done("train", "pets", *TRAIN, "--steps", 20, "--rate", 0.05, "--root", root)  # d1's own command, called again
    again = done("build", "others", *MODEL, "--json", "--root", root)
    assert json.loads(again.out)["version"] == "v1"
    assert "denoiser pets/test_vit/d2" in again.err
