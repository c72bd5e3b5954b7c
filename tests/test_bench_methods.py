"""``featstore bench methods`` as a user meets it, and the judging of planted features."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tinystore import MODEL, call, done, photographs

from dvt import MethodResult, Patches, SolverError, judge, position_share
from featstore.labelled import labelled_images

QUICK = (*MODEL, "--views", "4")
ALL = ["raw", "stage1/lstsq", "shift-mean", "position-mean", "rasa", "test-time-registers"]


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with twelve labelled photographs of which four are to judge by, in VOC's layout."""
    folder = tmp_path_factory.mktemp("voc")
    tree = folder / "VOCdevkit" / "VOC2012"
    photographs(folder / "pictures", range(12))
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation", "Annotations"):
        (tree / part).mkdir(parents=True)
    names = [f"2007_{number:06d}" for number in range(12)]
    for number, name in enumerate(names):
        picture = Image.open(folder / "pictures" / f"{number:03d}.png")
        picture.save(tree / "JPEGImages" / f"{name}.jpg", quality=95)
        bright = (np.asarray(picture.convert("L")) > 127).astype(np.uint8)
        bright[:4] = 255
        Image.fromarray(bright).save(tree / "SegmentationClass" / f"{name}.png")
    for split, own in (("train", names[:8]), ("val", names[8:]), ("trainval", names)):
        (tree / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(own))
    done("index", "voc", "--source", folder / "VOCdevkit", "--root", folder / "store")
    return folder / "store"


def test_a_table_of_all_methods(voc: Path, tmp_path: Path) -> None:
    root = shutil.copytree(voc, tmp_path / "store")
    rows = json.loads(done("bench", "methods", "voc", *QUICK, "--json", "--root", root).out)
    assert [row["method"] for row in rows] == ALL
    assert {row["images"] for row in rows} == {12}
    raw, stage1, shift, mean, *_ = rows
    assert [row["forwards"] for row in rows[:4]] == [1, 13, 10, 1]
    assert stage1["heldout_r2"] is not None
    assert raw["heldout_r2"] is None
    assert mean["position"] < min(0, raw["position"])  # none of what positions have in common is left
    for row in rows:
        low, high = row["knn"]["interval"]
        assert 0 <= low <= row["knn"]["value"] <= high + 0.05
        assert row["linear"]["value"] > 0.5
        assert row["seconds"] > 0
    assert shift["knn"]["difference"] == pytest.approx(shift["knn"]["value"] - raw["knn"]["value"])
    registers = rows[-1]
    assert (registers["linear"]["difference"], registers["knn"]["difference_interval"]) == (0, [0, 0])
    said = done("bench", "methods", "voc", *QUICK, "--methods", "position-mean", "--limit", 10, "--root", root)
    assert "10 images, " in said.err
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["raw", "position-mean"]
    assert "→" in lines[3]


def test_without_masks_what_needs_none_is_told(tmp_path: Path) -> None:
    pictures = sorted(photographs(tmp_path / "pictures", range(3)).iterdir())
    before = sorted(tmp_path.rglob("*"))
    chosen = ("--methods", "raw,shift-mean,position-mean")
    said = done("bench", "methods", *pictures, *MODEL, *chosen, "--root", tmp_path / "none")
    assert sorted(tmp_path.rglob("*")) == before  # the store of these files is gone
    assert "3 images, without masks" in said.err
    assert [line.split()[0] for line in said.out.splitlines()[2:]] == chosen[1].split(",")
    rows = json.loads(done("bench", "methods", *pictures, *MODEL, *chosen, "--json").out)
    assert all("knn" not in row for row in rows)


def test_what_cannot_be_compared_is_told_in_a_line(voc: Path, tmp_path: Path) -> None:
    photographs(tmp_path, [1])
    for words, told in (
        (("voc", "--methods", "raw,magic"), "unknown method magic: choose from raw, stage1"),
        (("nothing",), "nothing"),
        ((str(tmp_path / "001.png"),), "compared on two images or more"),
        ((str(tmp_path / "001.png"), "voc"), "is no file: give one data set, or image files"),
    ):
        said = call("bench", "methods", *words, *MODEL, "--root", voc)
        assert (said.code, told in said.err, said.err.count("\n")) == (1, True, 1), said.err


def test_images_come_by_their_bytes_in_two_parts(voc: Path, tmp_path: Path) -> None:
    images = labelled_images(voc, "voc")
    assert [image.sha256 for image in images] == sorted(image.sha256 for image in images)
    assert sum(image.judged for image in images) == 4
    assert all((image.image_id >= "2007_000008") == image.judged for image in images)
    assert labelled_images(voc, "voc", 5) == images[:5]
    done("index", "pets", "--source", photographs(tmp_path / "pets", range(5)), "--root", tmp_path / "store")
    plain = labelled_images(tmp_path / "store", "pets")
    assert [image.judged for image in plain] == [False, True, False, True, False]
    assert {image.mask for image in plain} == {None}


def planted(noise: float, seed: int = 0) -> tuple[MethodResult, Patches]:
    """Twelve images of 4×4 patches whose features tell their three labels but for noise."""
    generator = np.random.default_rng(seed)
    labels = [generator.integers(-1, 3, 16) * 7 for _ in range(12)]
    labels = [np.where(own < 0, -1, own) for own in labels]
    basis = np.random.default_rng(9).normal(0, 1, (22, 8))
    maps = [basis[own] + generator.normal(0, noise, (16, 8)) for own in labels]
    values = torch.from_numpy(np.stack(maps).reshape(12, 4, 4, 8)).half()
    result = MethodResult("planted", 1, values, 0.1, position_share(values.float()))
    return result, Patches(labels, [number % 3 == 0 for number in range(12)])


def test_features_that_tell_labels_are_better_than_noisy_ones_and_how_sure_that_is() -> None:
    (poor, patches), (good, _) = planted(3.0), planted(0.1)
    judge(poor, patches)
    judge(good, patches, poor)
    assert good.probes["knn"].value == good.probes["linear"].value == 1
    assert good.probes["linear"].interval == (1, 1)
    for name in ("knn", "linear"):
        figure = good.probes[name]
        assert figure.difference == pytest.approx(1 - poor.probes[name].value)
        assert 0 < figure.difference_interval[0] <= figure.difference <= figure.difference_interval[1]
    assert good.counts["knn"].shape == (4, 3, 3)
    again, _ = planted(3.0)
    judge(again, patches, poor)
    assert again.probes["knn"].difference_interval == (0, 0)
    with pytest.raises(SolverError, match="no labelled patch"):
        judge(again, Patches(patches.labels, [True] * 12))
