"""``featstore eval --task discovery``: planted objects found on photographs of every shape, and their boxes' pixels."""

import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from mean_patches import MeanPatches
from PIL import Image
from tinystore import call, done, rows
from torch import Tensor

from dvt import RawDecomposer, find_object
from dvt.buckets import Buckets
from featstore import FeatureDataset
from featstore.boxes import PhotographBoxes
from featstore.build import build_version
from featstore.errors import NotInStoreError
from featstore.geometry import Geometry
from featstore.plan import Request

WIDE, TALL, SQUARE = (96, 192), (192, 96), (96, 96)
OBJECTS = {  # size, where the object is, where its annotation says: left, top, right, bottom
    "a_wide": (WIDE, (72, 24, 120, 60), (72, 24, 120, 60)),
    "b_tall": (TALL, (24, 72, 60, 120), (24, 72, 60, 120)),
    "c_wrong": (SQUARE, (12, 24, 60, 60), (36, 24, 84, 60)),
    "d_nothing": (SQUARE, (12, 24, 60, 60), None),
    "e_edge": (WIDE, (0, 24, 48, 72), (0, 24, 48, 72)),
    "f_difficult": (SQUARE, (12, 24, 60, 60), (12, 24, 60, 60)),
}
BOX = "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"
RESIZES = ("squash", "shortest", "keep")


class Signed(MeanPatches):
    """Mean colours less one half: what is dark and what is light point away from each other."""

    def resized(self, input_size: tuple[int, int]) -> "Signed":
        return Signed(input_size)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps, prefix = super().forward(images)
        return maps - 0.5, prefix


def write_voc(tree: Path) -> None:
    """Light objects on dark ground, one an image; VOC counts pixels from 1."""
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tree / part).mkdir(parents=True)
    for name, (size, (left, top, right, bottom), told) in OBJECTS.items():
        image = np.full((*size, 3), 40, np.uint8)
        image[top:bottom, left:right] = 215
        Image.fromarray(image).save(tree / "JPEGImages" / f"{name}.jpg", quality=98)
        box = BOX.format(told[0] + 1, told[1] + 1, *told[2:]) if told else ""
        flags = f"<difficult>{int('difficult' in name)}</difficult><truncated>1</truncated>"
        noted = f"<object><name>thing</name>{flags}<bndbox>{box}</bndbox></object>" if told else ""
        (tree / "Annotations" / f"{name}.xml").write_text(f"<annotation>{noted}</annotation>")
    for split, some in (("train", list(OBJECTS)[:3]), ("val", list(OBJECTS)[3:]), ("trainval", list(OBJECTS))):
        (tree / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(some))


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("objects")
    write_voc(folder / "VOCdevkit" / "VOC2012")
    done("index", "voc", "--source", folder / "VOCdevkit", "--root", folder / "store")
    for resize in RESIZES:
        base = RawDecomposer(Signed((64, 64), resize), batch_size=3)
        made: Any = Buckets(base, RawDecomposer) if resize == "keep" else base
        build_version(folder / "store", Request("voc", "signed"), made)
    return folder / "store"


@pytest.mark.parametrize("resize", RESIZES)
def test_found_boxes_lie_on_the_photographs_objects(voc: Path, resize: str) -> None:
    version = f"v{RESIZES.index(resize) + 1}"
    data = FeatureDataset(voc, "voc", backbone="signed", version=version, variants="raw", objects=True)
    boxes = PhotographBoxes(voc, data)
    for place, item in enumerate(data):
        size, planted, told = OBJECTS[item["image_id"]]
        grid = item["raw"].shape[1:]
        cell = (
            min(size) / 8 if resize == "shortest" else max(side / count for side, count in zip(size, grid, strict=True))
        )
        hidden = resize == "shortest" and item["image_id"] == "e_edge"
        assert boxes.true(place).tolist() == ([list(told)] if told and not hidden else [])
        if not hidden:
            found = find_object(item["raw"].permute(1, 2, 0))
            away = np.abs(boxes.of_patches(place, found.box, tuple(grid)) - planted).max()
            assert away <= (0.75 * cell if resize == "keep" else 1e-9), item["image_id"]


def test_corloc_counts_images_with_an_object_in_sight(voc: Path, tmp_path: Path) -> None:
    root = shutil.copytree(voc, tmp_path / "store")
    told = json.loads(done("eval", "v1", "v2", "v3", "--task", "discovery", "--json", "--root", root).out)
    found = {(one["version"][-2:], one["metric"]): one for one in told}
    assert found["v1", "CorLoc"]["value"] == pytest.approx(4 / 5)
    assert found["v2", "CorLoc"]["value"] == pytest.approx(3 / 4)
    assert found["v3", "CorLoc"]["value"] == pytest.approx(4 / 5)
    assert found["v1", "whole image"]["value"] == 0
    assert found["v2", "CorLoc"]["difference"] == pytest.approx(-0.05)
    assert found["v3", "CorLoc"]["difference"] == found["v3", "CorLoc"]["difference_low"] == 0
    for one in told:
        assert (one["train_images"], one["val_images"], one["interval"]) == (0, 5, "images (bootstrap)")
        assert one["low"] <= one["value"] <= one["high"]
    some = "image_id IN ('a_wide', 'c_wrong')"
    said = done("eval", "v1", "--task", "discovery", "--val-where", some, "--k-patches", 3, "--root", root)
    assert ("0.500" in said.out, some in said.err) == (True, True)
    kept = rows(root, "SELECT DISTINCT task, CAST(settings ->> 'k_patches' AS INTEGER) FROM evaluations ORDER BY ALL")
    assert kept == [("discovery", 3), ("discovery", 100)]


def test_crowds_of_coco_are_no_objects(voc: Path, tmp_path: Path) -> None:
    root = shutil.copytree(voc, tmp_path / "store")
    with duckdb.connect(root / "manifest.duckdb") as connection:
        connection.execute("UPDATE datasets SET layout = 'coco'")
    told = json.loads(done("eval", "v1", "--task", "discovery", "--json", "--root", root).out)
    assert told[0]["value"] == pytest.approx(3 / 4)
    said = call("eval", "v1", "--task", "discovery", "--val-where", "image_id = 'f_difficult'", "--root", root)
    assert (said.code, "no image to judge by shows an object" in said.err) == (1, True)


def test_edges_of_overlapping_patches_lie_midway_between_their_centres() -> None:
    patch, stride, count = 14, 7, 9
    size = (count - 1) * stride + patch
    centres = patch / 2 + stride * np.arange(count)
    nearest = np.abs((np.arange(4 * size) + 0.5)[:, None] / 4 - centres).argmin(axis=1)
    geometry = Geometry((size, size))
    for first in range(count):
        for last in range(first, count):
            covered = np.flatnonzero((nearest >= first) & (nearest <= last))
            box = geometry.pixels((first, 0, last + 1, count), (count, count), 4 * size, 30, stride)
            assert (box[0], box[2]) == (0, 30)
            assert abs(box[1] - covered[0]) <= 1
            assert abs(box[3] - covered[-1] - 1) <= 1
    for at in range(1, 5):  # patches side by side
        assert geometry.pixels((0, 0, at, 5), (5, 5), 100, 100, 14)[3] == pytest.approx(20 * at)


def test_what_has_no_boxes_is_told_in_a_line(voc: Path, tmp_path: Path) -> None:
    for number in range(2):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(tmp_path / f"{number}.png")
    root = tmp_path / "store"
    done("index", "plain", "--source", tmp_path, "--layout", "folder", "--root", root)
    build_version(root, Request("plain", "signed"), RawDecomposer(Signed((64, 64)), batch_size=3))
    said = call("eval", "v1", "--task", "discovery", "--root", root)
    assert (said.code, said.err.count("\n")) == (1, 1)
    assert "plain has no boxes of objects, and masks of classes do not tell objects apart" in said.err
    said = call("eval", "v1", "--task", "discovery", "--val-where", "image_id = 'd_nothing'", "--root", voc)
    assert (said.code, "no stored image of voc/signed/v" in said.err) == (1, True)
    said = call("eval", "v1", "--task", "discovery", "--train-where", "true", "--root", voc)
    assert (said.code, "--task discovery learns nothing" in said.err) == (2, True)
    data = FeatureDataset(voc, "voc", backbone="signed", version="v1", variants="raw")
    del data.recipe["backbone"]["input"]
    with pytest.raises(NotInStoreError, match="--input-size"):
        PhotographBoxes(voc, data)
