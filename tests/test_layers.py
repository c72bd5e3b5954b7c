"""Several layers in one pass: each is the version that its layer alone makes, byte for byte, whatever came between."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tinystore import MODEL, call, photographs

import dvt
from featstore import FeatureDataset
from featstore.index import index_dataset

MADE = ("build", "pets", *MODEL)


def shards(root: Path) -> dict[str, bytes]:
    """Every shard's bytes, by its place in the store."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.h5")}


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, Path]:
    """Two stores that have the same folder of images indexed, one of which cannot be decoded."""
    folder = photographs(tmp_path / "pets", range(5))
    for name in ("001.png", "004.png"):
        Image.open(folder / name).transpose(Image.Transpose.ROTATE_90).save(folder / name)
    (folder / "broken.png").write_bytes((folder / "000.png").read_bytes()[:60])
    for name in ("one", "two"):
        index_dataset(tmp_path / name, "pets", folder)
    return tmp_path / "one", tmp_path / "two"


@pytest.mark.parametrize(
    "method", [("--method", "raw"), ("--method", "stage1", "--views", "2", "--holdout", "0", "--resize", "keep")]
)
def test_layers_of_one_pass_are_those_of_each_alone(roots: tuple[Path, Path], method: tuple[str, ...]) -> None:
    together, alone = roots
    said = call(*MADE, *method, "--layers", "0,-1", "--shard-size", 2, "--json", "--root", together)
    reports = json.loads(said.out)
    assert [report["computed"] for report in reports] == [5, 5]
    for layer in (0, -1):
        call(*MADE, *method, "--layer", layer, "--shard-size", 2, "--root", alone)
    assert shards(together) == shards(alone)
    shown = call("show", "pets/test_vit/v1", "--root", together).out
    assert "--layer 0 " in shown
    assert "--layers" not in shown.split("make it again")[1]


def test_what_one_layer_lacks_is_made_again_with_the_same_bytes(roots: tuple[Path, Path]) -> None:
    root, other = roots
    layers = (*MADE, "--method", "raw", "--layers", "0,1", "--shard-size", 2, "--json")
    call(*layers, "--root", root)
    whole = shards(root)
    first = sorted(whole)[0]
    (root / first).unlink()
    again = json.loads(call(*layers, "--root", root).out)
    assert sorted(report["computed"] for report in again) == [0, 2]
    assert shards(root) == whole
    call(*MADE, "--method", "raw", "--layer", 1, "--shard-size", 2, "--root", other)
    made = json.loads(call(*layers, "--root", other).out)
    assert [(report["computed"], report["present"]) for report in made] == [(5, 0), (0, 5)]
    assert shards(other) == whole


@pytest.mark.slow
def test_two_workers_and_a_broken_image(roots: tuple[Path, Path]) -> None:
    together, alone = roots
    layers = (*MADE, "--method", "raw", "--layers", "0,1", "--shard-size", 2, "--json")
    call(*layers, "--root", alone)
    call(*layers, "--device", "cpu,cpu", "--root", together)
    names = [{path: len(data) for path, data in shards(root).items()} for root in roots]
    assert names[0].keys() == names[1].keys()
    one, two = (
        FeatureDataset(root, "pets", versions={"a": "pets/test_vit/v1", "b": "pets/test_vit/v2"}, variants="raw")
        for root in roots
    )
    for first, second in zip(one, two, strict=True):
        assert torch.equal(first["a/raw"], second["a/raw"])
        assert torch.equal(first["b/raw"], second["b/raw"])
        assert not torch.equal(first["a/raw"], first["b/raw"])


def test_wrong_layers_are_told_in_a_line(roots: tuple[Path, Path]) -> None:
    root = roots[0]
    for words, said in (
        (("--layers", "0,99"), "there is no layer 99"),
        (("--layers", "1,1"), "given twice"),
        (("--layers", "a"), "no list of blocks"),
        (("--layers", "0,1", "--layer", "1"), "give one of them"),
    ):
        result = call(*MADE, "--method", "raw", *words, "--root", root)
        assert result.code, words
        assert said in result.err, words


def test_forwards_are_made_once_and_never_of_other_pixels() -> None:
    backbone = dvt.Backbone.create("test_vit", weights="random", input_size=(64, 64))
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 255, (50, 70, 3), dtype=np.uint8) for _ in range(4)]
    layers = dvt.Layers([dvt.RawDecomposer(one) for one in dvt.at_layers(backbone, [0, 2, 1])])
    prepared = [layers.prepare(image, "") for image in images]
    layers.tape.forwards = 0
    with layers.one_pass():
        found = [part.decompose(prepared) for part in layers.parts]
        assert layers.tape.forwards == 1
        others = layers.parts[1].decompose(prepared[::-1])
        assert layers.tape.forwards == 2
    for layer, own in zip((0, 2, 1), found, strict=True):
        alone = dvt.RawDecomposer(dvt.Backbone.create("test_vit", weights="random", input_size=(64, 64), layer=layer))
        for one, two in zip(alone.decompose(prepared), own, strict=True):
            assert torch.equal(one.raw, two.raw)
    assert torch.equal(others[0].raw, found[1][-1].raw)
