"""The command that a version's provenance has makes the same version, whatever words it was made with."""

import json
import shlex
from pathlib import Path

import h5py
import pytest
from tinystore import MODEL, STAGE1, done, make_trained, photographs, rows

from featstore.cli.reproduce import decomposer_of
from featstore.errors import InputError, NotInStoreError
from featstore.recipe import Recipe


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with versions of every method, made with few words and with many."""
    root = make_trained(tmp_path_factory.mktemp("reproduce"), 4)
    done("build", "pets", *MODEL, "--root", root)  # stage 2, since there is a denoiser
    many = ("--views", 9, "--holdout", 2, "--area", "0.2,0.6", "--nodes", 6, "--smooth", "0.01,0.1", "--rounds", 0)
    many += ("--blend", 0.25, "--context", 0.5, "--seed", 3, "--clean-grid", "8x6")
    done("build", "pets", *MODEL, *many, "--no-norm", "--layer", 2, "--stride", 8, "--limit", 1, "--root", root)
    done("build", "pets", *MODEL, "--solver", "field", "--iterations", 3, "--views", 4, "--limit", 1, "--root", root)
    done("build", "pets", *STAGE1, "--artifact-prior", "pets/test_vit/v1", "--limit", 1, "--root", root)
    return root


@pytest.mark.parametrize("version", ["v1", "v2", "v3", "v4", "v5", "v6"])
def test_the_command_makes_the_same_version(root: Path, version: str) -> None:
    provenance, digest = made(root, version)
    words = shlex.split(provenance["reproduce"])
    assert words[:3] == ["featstore", "build", "pets"]
    plan = json.loads(done(*words[1:], "--device", "cpu", "--dry-run", "--json", "--root", root).out)
    assert plan["digest"] == digest
    assert Recipe.of(decomposer_of(root, version, "cpu").recipe()).digest == digest


def test_a_shard_tells_the_command_and_the_manifest_both(root: Path) -> None:
    provenance, _ = made(root, "v1")
    assert provenance["command"]
    with h5py.File(next(iter(sorted(root.glob("pets/test_vit/*/shard-00000.h5"))))) as file:
        told = json.loads(file.attrs["provenance"])
    assert told["reproduce"].startswith("featstore build pets --backbone test_vit --weights random")
    assert {"torch", "timm", "python", "device", "weights_source"} <= told.keys()
    assert "command" not in told
    said = done("show", "v1", "--root", root).out
    assert f"make it again\n  {provenance['reproduce']}\n" in said


def test_denoise_tells_the_build_that_makes_the_same(root: Path, tmp_path: Path) -> None:
    ((before,),) = rows(root, "SELECT count(*) FROM builds")
    done("denoise", "pets/test_vit/v2", "--device", "cpu", "--root", root)
    assert rows(root, "SELECT count(*) FROM builds") == [(before,)]  # all there: nothing was done, nothing is logged
    done("index", "more", "--source", photographs(tmp_path / "more", range(20, 22)), "--root", root)
    done("build", "more", *MODEL, "--method", "raw", "--root", root)
    done("denoise", "more/test_vit/v1", "--denoiser", "d1", "--device", "cpu", "--root", root)
    provenance, digest = made(root, "more/test_vit/v2")
    words = shlex.split(provenance["reproduce"])
    assert words[words.index("--method") + 1] == "stage2"
    plan = json.loads(done(*words[1:], "--device", "cpu", "--dry-run", "--json", "--root", root).out)
    assert (plan["digest"], plan["to_compute"]) == (digest, 0)


def test_what_cannot_be_made_again_says_why(root: Path, tmp_path: Path) -> None:
    done("index", "other", "--source", photographs(tmp_path / "other", range(2)), "--root", root)
    done("build", "other", *STAGE1, "--root", root)
    import duckdb

    with duckdb.connect(str(root / "manifest.duckdb")) as connection:
        told = json.loads(
            connection.execute("SELECT provenance FROM versions WHERE dataset = 'other'").fetchall()[0][0]
        )
        change = "UPDATE versions SET provenance = ? WHERE dataset = 'other'"
        connection.execute(change, [json.dumps(told | {"reproduce": told["reproduce"] + " --seed 9"})])
    with pytest.raises(
        InputError, match="makes another version here than other/test_vit/v1: they differ in backbone, method"
    ):
        decomposer_of(root, "other/test_vit/v1", "cpu")
    with duckdb.connect(str(root / "manifest.duckdb")) as connection:
        connection.execute(change, [json.dumps(told | {"reproduce": told["reproduce"] + " --no-such-thing"})])
    with pytest.raises(InputError, match="recorded with this version, cannot be run here: No such option"):
        decomposer_of(root, "other/test_vit/v1", "cpu")
    with duckdb.connect(str(root / "manifest.duckdb")) as connection:
        connection.execute(change, ["{}"])
    with pytest.raises(NotInStoreError, match="does not tell by which command"):
        decomposer_of(root, "other/test_vit/v1", "cpu")


def made(root: Path, version: str) -> tuple[dict[str, str], str]:
    facts = json.loads(
        done("show", version if "/" in version else f"pets/test_vit/{version}", "--json", "--root", root).out
    )
    return facts["provenance"], facts["digest"]
