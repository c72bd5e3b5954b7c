"""``featstore diagnose`` as a user meets it: files, data sets, what is stored, two backbones, errors of one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tinystore import MODEL, call, done, photographs, stored

FAST = (*MODEL, "--crops", "1")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return sorted(photographs(tmp_path_factory.mktemp("photos"), range(3)).iterdir())


def told(*arguments: object) -> dict[str, Any]:
    return json.loads(done("diagnose", *arguments, "--json").out)


def test_json_tells_of_every_block_before_and_after_the_norm(files: list[Path]) -> None:
    found = told(*files, *FAST, "--blocks", "-1,0")
    assert [image["image"] for image in found["images"]] == [file.name for file in files]
    assert found["stored"] is None
    (one,) = found["backbones"]
    assert one | {"layers": 0} == one | {
        "layers": 0, "backbone": "test_vit", "grid": [4, 4], "input": [64, 64], "blocks": 6, "images": 3, "crops": 3
    }  # fmt: skip
    assert one["weights"] == "random:0"
    assert [layer["name"] for layer in one["layers"]] == ["0", "1", "2", "3", "4", "5", "norm"]
    assert [layer["after_norm"] for layer in one["layers"]] == [False] * 6 + [True]
    assert [layer["position"]["mic"] is not None for layer in one["layers"]] == [True, *[False] * 4, True, True]
    for layer in one["layers"]:
        assert 0 < layer["norm"]["min"] <= layer["norm"]["median"] <= layer["norm"]["max"]
        assert sum(layer["histogram"]["tokens"]) == 3 * 16
        assert len(layer["histogram"]["edges"]) == len(layer["histogram"]["tokens"]) + 1
        assert layer["position"]["images"] < 1
        assert layer["prefix"].keys() == {"class"}
        counts = layer["outliers"]["counts"]
        assert layer["outliers"]["per_image"] == pytest.approx(sum(counts) / 3)
        assert sum(place["images"] for place in layer["outliers"]["places"]) == pytest.approx(sum(counts) / 3)


def test_the_table_fits_a_hundred_columns_and_says_what_is_random(files: list[Path]) -> None:
    said = done(
        "diagnose",
        *files,
        "--backbone",
        "vit_small_patch14_reg4_dinov2",
        "--weights",
        "random",
        "--input-size",
        28,
        "--crops",
        1,
    )
    lines = said.out.splitlines()
    assert max(map(len, lines)) <= 100
    heading = next(line for line in lines if "median" in line and "block" in line)
    assert heading.split() == [
        "block",
        "min",
        "median",
        "max",
        "class",
        "registers",
        "outliers",
        "images",
        "position",
        "crops",
        "MIC",
    ]
    assert sum(line.split()[:1] == [name] for line in lines for name in (*map(str, range(12)), "norm")) == 13
    assert "random" in said.out.split("block")[-1]
    assert "norm above 2 × the median" in lines[0]
    one = done("diagnose", files[0], *MODEL, "--crops", 0)
    assert "–" in one.out  # one image tells nothing of positions
    assert "crops" not in one.out.split("MIC")[0].splitlines()[-1]


def test_a_threshold_is_a_multiple_or_a_norm(files: list[Path]) -> None:
    norms = [layer["norm"] for layer in told(*files, *FAST)["backbones"][0]["layers"]]
    under = told(*files, *FAST, "--threshold", norms[2]["min"] * 0.99)
    assert under["outlier"].startswith("norm above")
    assert under["backbones"][0]["layers"][2]["outliers"]["per_image"] == 16
    assert told(*files, *FAST, "--threshold", "1000x")["backbones"][0]["verdict"].startswith("no block has outlier")
    assert call("diagnose", *files, *FAST, "--threshold", "many").code == 2
    assert call("diagnose", *files, *FAST, "--threshold", "1x").code == 1


def test_two_backbones_stand_side_by_side(files: list[Path], tmp_path: Path) -> None:
    figure = tmp_path / "both.png"
    second = ("--against", "vit_tiny_patch16_224", "--against-weights", "random")
    said = done("diagnose", *files, *FAST, *second, "--figure", figure)
    assert max(map(len, said.out.splitlines())) <= 100
    assert "A: test_vit at 64×64" in said.out
    assert "B: vit_tiny_patch16_224 at 64×64" in said.out
    rows = [line.split() for line in said.out.splitlines() if line.split()[:1] in ([str(n)] for n in range(12))]
    assert len(rows) == 12
    shares = [row.count("%") for row in rows]  # test_vit has six blocks, the other twelve
    assert shares == [2] * 6 + [1] * 6
    found = told(*files, *FAST, *second)["backbones"]
    assert [one["backbone"] for one in found] == ["test_vit", "vit_tiny_patch16_224"]
    assert Image.open(figure).height > Image.open(figure).width


def test_of_a_data_set_what_is_stored_is_shown_before_and_after(trained: Path) -> None:
    found = told("pets", *FAST, "--root", trained, "--limit", 6)
    maps = stored(trained, "v1", "raw", "clean", "artifact")
    names = [image["image"] for image in found["images"]]
    assert len(names) == 6
    assert found["stored"]["version"] == "pets/test_vit/v1"
    assert [layer["name"] for layer in found["stored"]["layers"]] == ["raw", "clean", "artifact"]
    for layer in found["stored"]["layers"]:
        norms = np.linalg.norm([maps[name][layer["name"]].astype(np.float32) for name in names], axis=-1)
        assert layer["norm"]["max"] == pytest.approx(norms.max(), rel=1e-5)
        assert layer["norm"]["median"] == pytest.approx(np.median(norms), rel=1e-5)
    same = next(layer for layer in found["backbones"][0]["layers"] if layer["after_norm"])
    assert found["stored"]["layers"][0]["norm"]["max"] == pytest.approx(same["norm"]["max"], rel=2e-3)  # float16
    mic = [layer["position"]["mic"] for layer in (found["stored"]["layers"][0], same)]
    assert mic[0] == pytest.approx(mic[1], abs=0.01)
    said = done("diagnose", "pets", *FAST, "--root", trained, "--limit", 6)
    assert "pets/test_vit/v1 (stage1/lstsq, block 5, after the final norm), 6 images" in said.out
    assert "other weights" not in said.out


def test_a_version_alone_needs_no_model(trained: Path) -> None:
    found = told("pets/test_vit/v1", "--stored", "--root", trained, "--weights", "/nowhere")
    assert found["backbones"] == []
    assert found["stored"]["images"] == 10
    said = done("diagnose", "pets/test_vit/v1", "--stored", "--root", trained)
    assert [line.split()[0] for line in said.out.splitlines()[-3:]] == ["raw", "clean", "artifact"]
    missing = call("diagnose", "pets/test_vit/v2", "--stored", "--root", trained)
    assert missing.code == 1
    assert "does not store raw, clean, artifact" in missing.err


def test_a_version_decides_backbone_and_input_size(trained: Path) -> None:
    found = told("pets/test_vit/v1", "--root", trained, "--weights", "random", "--crops", 0, "--limit", 2)
    assert (found["backbones"][0]["backbone"], found["backbones"][0]["input"]) == ("test_vit", [64, 64])
    assert found["stored"]["weights_digest"] == found["backbones"][0]["weights_digest"]
    other = told("pets/test_vit", "--root", trained, *MODEL[2:4], "--input-size", 32, "--crops", 0, "--limit", 2)
    assert other["backbones"][0]["input"] == [32, 32]
    said = done("diagnose", "pets/test_vit/v1", "--root", trained, *FAST, "--stride", 8, "--limit", 2)
    assert "7×7 patches" in said.out


def test_a_version_decides_which_images_and_a_data_set_does_not(tmp_path: Path) -> None:
    source = photographs(tmp_path / "pets", range(8))
    root = ("--root", tmp_path / "store")
    done("build", "pets", "--source", source, *MODEL, "--method", "shift-mean", "--views", 3, "--limit", 2, *root)
    every = [
        image["sha256"] for image in told("pets", *MODEL, "--crops", 0, "--blocks", 0, "--limit", 8, *root)["images"]
    ]
    found = told("pets/test_vit/v1", "--stored", "--limit", 1, *root)["images"]
    assert found[0]["image"] in ("000.png", "001.png")
    last = max(every.index(image["sha256"]) for image in told("pets/test_vit/v1", "--stored", *root)["images"])
    assert last > 1, "the first two by name would be the first two by SHA-256: choose other photographs"
    first = every.index(found[0]["sha256"])
    if first > 0:
        missing = call("diagnose", "pets", "--backbone", "test_vit", "--stored", "--limit", first, *root)
        assert (missing.code, "name it" in missing.err) == (1, True)


def test_images_are_chosen_by_a_condition_and_by_sha256(trained: Path) -> None:
    first = told("pets", "--stored", "--backbone", "test_vit", "--root", trained, "--limit", 3)["images"]
    every = told("pets", "--stored", "--backbone", "test_vit", "--root", trained)["images"]
    assert first == sorted(every, key=lambda image: image["sha256"])[:3]
    chosen = told("pets", "--stored", "--backbone", "test_vit", "--root", trained, "--where", "image_id < '004.png'")
    assert sorted(image["image"] for image in chosen["images"]) == [f"00{n}.png" for n in range(4)]
    wrong = call("diagnose", "pets", "--root", trained, *FAST, "--where", "nonsense = 1")
    assert (wrong.code, wrong.err.count("\n")) == (1, 1)
    assert "--where" in wrong.err


def test_what_cannot_be_read_is_left_out_of_a_data_set_and_told(tmp_path: Path) -> None:
    source = photographs(tmp_path / "pets", range(3))
    done("index", "pets", "--source", source, "--root", tmp_path / "store")
    (source / "001.png").write_bytes(b"no picture")
    said = call("diagnose", "pets", *FAST, "--root", tmp_path / "store")
    assert said.code == 3
    assert "left out: 001" in said.err
    assert "2 images" in said.out
    report = call("diagnose", "pets", *FAST, "--root", tmp_path / "store", "--json")
    assert json.loads(report.out)["failed"].keys() == {"001.png"}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nothing.jpg"], 1, "neither an image file nor a data set"),
        (["nothing"], 1, "there is no manifest|no store|no data set"),
        (["FILE", "nothing.jpg"], 1, "there is no image nothing.jpg"),
        (["FOLDER"], 1, "is a folder: give images of it"),
        (["BROKEN"], 1, "broken.png: this is not an image"),
        (["FILE", "--blocks", "9"], 1, "there is no block 9: this backbone has blocks 0 to 5"),
        (["FILE", "--blocks", "last"], 2, "no list of blocks"),
        (["FILE", "--where", "true"], 1, "images of a data set, not files"),
        (["FILE", "--stored"], 1, "--stored needs a data set"),
        (["FILE", "--against-weights", "x"], 1, "needs --against"),
        (["FILE", "--figure", "a.jpg"], 1, "a name that ends in .png"),
        (["FILE", "--figure", "no/where/a.png"], 1, "there is no folder"),
        ([], 2, "Missing argument"),
    ],
)
def test_errors_are_one_line(
    words: list[str], code: int, said: str, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import re

    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    known = {"FILE": files[0], "FOLDER": files[0].parent, "BROKEN": tmp_path / "broken.png"}
    found = call("diagnose", *(known.get(word, word) for word in words), *FAST, "--root", tmp_path / "store")
    assert found.code == code, found
    assert re.search(said, found.err), found.err
    if code == 1:
        lines = [line for line in found.err.splitlines() if not line.startswith("test_vit, weights")]
        assert len(lines) == 1, found.err
