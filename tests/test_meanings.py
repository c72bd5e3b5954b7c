"""What layouts say of masks and boxes reaches the reader: planted truth, from the files to a batch."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_images import encoded, make_voc
from fakes import make_folder
from PIL import Image
from readable import INPUT, Recipe
from trees import write, write_mask, write_photo

from featstore import FeatureDataset
from featstore.annotations import meaning_of
from featstore.build import build_version
from featstore.index import index_dataset
from featstore.plan import Request
from featstore.records import Meaning
from featstore.sources.voc import CLASSES

HEIGHT, WIDTH = INPUT


def opened(store: Path, name: str, folder: Path, problems: int = 0, **wanted: bool) -> FeatureDataset:
    """Index and build a data set with the fake, and open it; the input is 20×30, images are twice as large."""
    report = index_dataset(store, name, folder)
    assert len(report.problems) == problems
    build_version(store, Request(name, "fake"), Recipe())
    return FeatureDataset(store, name, backbone="fake", **wanted)  # type: ignore[arg-type]


def make_photo(path: Path) -> None:
    write_photo(path, 2 * WIDTH, 2 * HEIGHT, seed=len(path.name))


def test_boxes_of_coco_are_edges_from_nought(tmp_path: Path) -> None:
    make_photo(tmp_path / "coco" / "train2017" / "1.jpg")
    box = {"id": 1, "image_id": 1, "category_id": 5, "bbox": [4.5, 8, 20.5, 30], "iscrowd": 1, "segmentation": []}
    whole = {**box, "id": 2, "bbox": [0, 0, 2 * WIDTH, 2 * HEIGHT], "iscrowd": 0}
    told = {"images": [{"id": 1, "file_name": "1.jpg"}], "categories": [{"id": 5, "name": "cat"}]}
    told["annotations"] = [box, whole]
    write(tmp_path / "coco" / "annotations" / "instances_train2017.json", json.dumps(told))
    item = opened(tmp_path / "store", "coco", tmp_path / "coco", objects=True)[0]["objects"]
    assert item["boxes"].tolist() == [[2.25, 4, 12.5, 19], [0, 0, WIDTH, HEIGHT]]
    assert item["difficult"].tolist() == [True, False]


def test_colours_of_ade20k_are_labels_with_names(tmp_path: Path) -> None:
    place = tmp_path / "ade" / "ADE20K_2021_17_01" / "images" / "ADE" / "validation" / "urban" / "street"
    make_photo(place / "ADE_val_1.jpg")
    colours = np.zeros((2 * HEIGHT, 2 * WIDTH, 3), np.uint8)
    colours[10:30, 6:20] = (110, 45, 77)
    write(place / "ADE_val_1_seg.png", encoded(Image.fromarray(colours), "PNG"))
    polygon = {"x": [6, 20, 20, 6], "y": [10, 10, 30, 30]}
    van = {"id": 0, "name": "van", "name_ndx": 11 * 256 + 45, "parts": {"part_level": 0}, "polygon": polygon}
    write(place / "ADE_val_1.json", json.dumps({"annotation": {"object": [van]}}))
    data = opened(tmp_path / "store", "ade", tmp_path / "ade", mask=True, objects=True, label=True)
    assert data.mask_classes is not None
    assert (data.mask_classes[2861], data.mask_ignored) == ("van", (0,))
    expected = torch.zeros(HEIGHT, WIDTH, dtype=torch.int64)
    expected[5:15, 3:10] = 2861
    assert torch.equal(data[0]["mask"], expected)
    assert data[0]["objects"]["boxes"].tolist() == [[3, 5, 10, 15]]
    assert data.classes == ("street",)


def test_panoptic_pictures_are_read_with_the_json_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATSTORE_CACHE", str(tmp_path / "cache"))
    make_photo(tmp_path / "coco" / "val2017" / "1.jpg")
    colours = np.zeros((2 * HEIGHT, 2 * WIDTH, 3), np.uint8)
    colours[:, WIDTH:] = (1, 2, 3)
    write(tmp_path / "coco" / "annotations" / "panoptic_val2017" / "1.png", encoded(Image.fromarray(colours), "PNG"))
    segment = {"id": 1 + 2 * 256 + 3 * 65536, "category_id": 184}
    told = {"annotations": [{"file_name": "1.png", "image_id": 1, "segments_info": [segment]}]}
    told["categories"] = [{"id": 184, "name": "tree-merged"}]
    write(tmp_path / "coco" / "annotations" / "panoptic_val2017.json", json.dumps(told))
    data = opened(tmp_path / "store", "coco", tmp_path / "coco", mask=True)
    assert data.mask_classes is not None
    assert data.mask_classes[184] == "tree-merged"
    assert data[0]["mask"].unique().tolist() == [0, 184]
    assert (data[0]["mask"][:, WIDTH // 2 :] == 184).all()


def test_names_of_voc_and_of_what_has_none(tmp_path: Path) -> None:
    index_dataset(tmp_path / "store", "voc", make_voc(tmp_path / "voc", ("VOC2007",)).folder)
    index_dataset(tmp_path / "store", "pets", make_folder(tmp_path / "pets", count=1))
    assert meaning_of(tmp_path / "store", "voc") == Meaning(CLASSES, (255,), "index")
    assert meaning_of(tmp_path / "store", "pets") == Meaning()


def test_a_mask_of_the_wrong_colours_is_left_out_with_its_reason(tmp_path: Path) -> None:
    place = tmp_path / "ade" / "ADE20K_2021_17_01" / "images" / "ADE" / "training" / "urban" / "street"
    make_photo(place / "a.jpg")
    write_mask(place / "a_seg.png", 3, 2 * WIDTH, 2 * HEIGHT)
    write(place / "a.json", json.dumps({"annotation": {"object": []}}))
    report = index_dataset(tmp_path / "store", "ade", tmp_path / "ade")
    assert [(p.step, p.error.split(",")[0]) for p in report.problems] == [
        ("mask", "a mask coded as ade20k holds colours (RGB)"),
    ]
