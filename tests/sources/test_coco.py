"""COCO: boxes against a plain reading of the JSON, COCO-Stuff's and panoptic masks, half-extracted archives."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trees
from bad_images import encoded
from PIL import Image
from trees import write, write_mask, write_photo

from featstore import sources
from featstore.errors import DecodeError, SourceError
from featstore.masks import read_mask
from featstore.panoptic import segments_of
from featstore.sources.coco_names import STUFF_AND_THINGS

CLASSES = {1: "person", 18: "dog", 90: "toothbrush"}


def made(part: str, count: int = 3) -> dict[str, Any]:
    """An instances file of random boxes, polygons and crowds included."""
    chance = random.Random(part)
    images = [{"id": 10 * n, "file_name": f"{n:012d}.jpg", "width": 8, "height": 6} for n in range(1, count + 1)]
    annotations = []
    for number in range(2 * count):
        x, y = round(chance.uniform(0, 5), 2), round(chance.uniform(0, 4), 2)
        crowd = number % 3 == 0
        polygon = [[x, y, x + 1, y, x, y + 1]]
        annotations.append(
            {
                "segmentation": {"counts": [3, 4], "size": [6, 8]} if crowd else polygon,
                "iscrowd": int(crowd),
                "image_id": 10 * chance.randint(1, count),
                "bbox": [x, y, 1.5, 2],
                "category_id": chance.choice(list(CLASSES)),
                "id": number,
            }
        )
    categories = [{"supercategory": "any", "id": key, "name": name} for key, name in CLASSES.items()]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def make_coco(folder: Path, below: str = "") -> Path:
    base = folder / "coco"
    for part, start in (("train2017", 1), ("val2017", 11)):
        told = made(part)
        for entry in told["images"]:
            entry["file_name"] = f"{start:012d}.jpg"
            write_photo(base / below / part / entry["file_name"], seed=start)
            write_mask(base / "stuffthingmaps" / part / f"{start:012d}.png", start)
            start += 1
        write(base / "annotations" / f"instances_{part}.json", json.dumps(told))
    return base


def plainly(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every image's boxes, by going through the whole file once an image."""
    told = json.loads(path.read_text())
    names = {entry["id"]: entry["name"] for entry in told["categories"]}
    found = {}
    for image in told["images"]:
        own = [entry for entry in told["annotations"] if entry["image_id"] == image["id"]]
        edges = [(x, y, x + w, y + h) for x, y, w, h in (entry["bbox"] for entry in own)]
        found[Path(image["file_name"]).stem] = [
            (names[entry["category_id"]], *box, bool(entry["iscrowd"])) for entry, box in zip(own, edges, strict=True)
        ]
    return found


@pytest.mark.parametrize("below", ["", "images"])
def test_boxes_splits_and_masks(tmp_path: Path, below: str) -> None:
    base = make_coco(tmp_path, below)
    for folder in (tmp_path, base):
        assert sources.detect(folder).layout == "coco"
        records, problems = trees.read("coco", folder)
        assert problems == []
        truth = {}
        for part in ("train2017", "val2017"):
            truth |= plainly(base / "annotations" / f"instances_{part}.json")
        told = {
            n: [(b.name, b.xmin, b.ymin, b.xmax, b.ymax, b.difficult) for b in r.objects] for n, r in records.items()
        }
        assert told == truth
        assert sum(map(len, truth.values())) == 12
        assert [(r.split, r.splits) for r in records.values()] == [
            *[("train", ("coco/train2017",))] * 3,
            *[("val", ("coco/val2017",))] * 3,
        ]
        for name, record in records.items():
            assert (folder / record.path).is_file()
            assert (
                (folder / str(record.mask_path))
                .as_posix()
                .endswith(f"/stuffthingmaps/{record.splits[0][5:]}/{name}.png")
            )
    meaning = sources.get("coco").meaning(base)
    assert meaning.mask_classes == STUFF_AND_THINGS
    assert meaning.mask_ignored == (255,)


def test_labels_of_coco_stuff_are_categories_less_one() -> None:
    """Numbers of categories as COCO and COCO-Stuff publish them."""
    published = {
        1: "person",
        12: "street sign",
        44: "bottle",
        90: "toothbrush",
        92: "banner",
        157: "sky-other",
        182: "wood",
    }
    assert len(STUFF_AND_THINGS) == len(set(STUFF_AND_THINGS)) == 182
    assert {number: STUFF_AND_THINGS[number - 1] for number in published} == published


def test_half_extracted_sets_are_told_with_counts(tmp_path: Path) -> None:
    base = make_coco(tmp_path)
    (base / "train2017" / f"{2:012d}.jpg").unlink()
    (base / "stuffthingmaps" / "val2017" / f"{12:012d}.png").unlink()
    shutil.rmtree(base / "val2017")
    records, problems = trees.read("coco", base)
    assert list(records) == [f"{n:012d}" for n in (1, 3)]
    assert [(p.path, p.step, p.error.split(":")[0]) for p in problems] == [
        ("train2017", "image", "1 of 3 images of instances_train2017.json are not here"),
        ("val2017", "image", "3 of 3 images of instances_val2017.json are not here"),
    ]
    shutil.rmtree(base / "train2017")
    with pytest.raises(SourceError, match="no image found"):
        trees.read("coco", base)
    with pytest.raises(SourceError, match=f"the folder to give is {base}$"):
        trees.read("coco", base / "annotations")


def test_what_a_file_has_wrong_is_told_and_the_rest_is_read(tmp_path: Path) -> None:
    base = make_coco(tmp_path)
    path = base / "annotations" / "instances_train2017.json"
    whole = path.read_text()
    told = json.loads(whole)
    first, second, third, *_ = told["annotations"]
    first["bbox"], second["bbox"], third["image_id"] = [1, 2, 3], [1, 2, float("nan"), 3], 999
    path.write_text(json.dumps(told))
    records, problems = trees.read("coco", base)
    assert [p.error.split(":")[0] for p in problems] == [
        "2 of 6 annotations have no image, no category or no box of four numbers and are left out",
        "1 of 6 annotations are of images that the file does not name",
    ]
    assert sum(len(record.objects) for record in records.values() if record.split == "train") == 3
    for damaged in (whole[: len(whole) // 2], "[]", "{}", "\xff"):
        path.write_text(damaged, encoding="latin-1")
        records, problems = trees.read("coco", base)
        assert ["boxes are left out: fetch it again" in p.error for p in problems] == [True]
        assert len(records) == 6


def test_names_in_two_parts_and_files_called_with_their_folders(tmp_path: Path) -> None:
    base = tmp_path / "own"
    told = made("default", 2)
    told["images"][0]["file_name"] = "here/a.jpg"
    told["images"][1]["file_name"] = "default/b.jpg"
    for name in ("here/a.jpg", "b.jpg"):
        write_photo(base / "images" / name)
    write(base / "annotations" / "instances_default.json", json.dumps(told))
    records, problems = trees.read("coco", base)
    assert problems == []
    assert list(records) == ["b", "here/a"]
    assert sum(len(record.objects) for record in records.values()) == 4
    for part in ("train2017", "val2017"):
        write_photo(tmp_path / "two" / part / "same.jpg")
    assert list(trees.read("coco", tmp_path / "two")[0]) == ["train2017/same", "val2017/same"]


def test_panoptic_pictures_are_instances(tmp_path: Path) -> None:
    base = make_coco(tmp_path)
    for number in (1, 2, 3):
        picture = encoded(Image.new("RGB", (8, 6), (number, 2, 3)), "PNG")
        write(base / "annotations" / "panoptic_train2017" / f"{number:012d}.png", picture)
    records, problems = trees.read("coco", base)
    assert problems == []
    assert [record.instance_path is not None for record in records.values()] == [True] * 3 + [False] * 3
    assert records[f"{2:012d}"].instance_path == f"annotations/panoptic_train2017/{2:012d}.png"


def test_without_coco_stuff_panoptic_pictures_are_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels against a loop over pixels that looks each colour up in the JSON."""
    monkeypatch.setenv("FEATSTORE_CACHE", str(tmp_path / "cache"))
    base = make_coco(tmp_path)
    shutil.rmtree(base / "stuffthingmaps")
    chance = np.random.default_rng(5)
    told: dict[str, Any] = {"annotations": [], "categories": [{"id": n, "name": CLASSES[n]} for n in CLASSES]}
    pictures = {}
    for number in (3, 1, 2):
        colours = np.zeros((4, 3), np.uint8)
        colours[1:] = chance.integers(0, 256, (3, 3))
        pictures[f"{number:012d}"] = picture = colours[chance.integers(0, 4, (6, 8))]
        ids = [int(c[0]) + 256 * int(c[1]) + 65536 * int(c[2]) for c in colours[1:]]
        segments = [{"id": i, "category_id": c, "bbox": [0, 0, 1, 1]} for i, c in zip(ids, CLASSES, strict=True)]
        told["annotations"].append({"file_name": f"{number:012d}.png", "image_id": number, "segments_info": segments})
        write(
            base / "annotations" / "panoptic_train2017" / f"{number:012d}.png", encoded(Image.fromarray(picture), "PNG")
        )
    write(base / "annotations" / "panoptic_train2017.json", json.dumps(told))
    records, problems = trees.read("coco", base)
    assert problems == []
    meaning = sources.get("coco").meaning(base)
    assert (meaning.mask_coding, meaning.mask_ignored) == ("panoptic", (0,))
    assert meaning.mask_classes is not None
    assert {n: meaning.mask_classes[n] for n in (*CLASSES, 0, 2)} == {**CLASSES, 0: "unlabelled", 2: ""}
    for again in (False, True):
        segments_of.cache_clear()
        for stem, picture in pictures.items():
            own = next(e for e in told["annotations"] if e["file_name"].startswith(stem))["segments_info"]
            lookup = {0: 0} | {entry["id"]: entry["category_id"] for entry in own}
            expected = [[lookup[int(r) + 256 * int(g) + 65536 * int(b)] for r, g, b in row] for row in picture]
            assert records[stem].mask_path == records[stem].instance_path
            path = base / str(records[stem].mask_path)
            assert read_mask(path.read_bytes(), "panoptic", path).tolist() == expected
        assert len(list((tmp_path / "cache" / "panoptic").glob("*.npz"))) == 1, again
    path = base / str(records[f"{1:012d}"].mask_path)
    with pytest.raises(DecodeError, match="segments that the JSON beside it does not name"):
        read_mask(encoded(Image.new("RGB", (3, 3), (1, 1, 1)), "PNG"), "panoptic", path)
    with pytest.raises(DecodeError, match="does not name this one"):
        read_mask(path.read_bytes(), "panoptic", path.with_name("other.png"))
    with pytest.raises(DecodeError, match="without its place"):
        read_mask(path.read_bytes(), "panoptic")
    (base / "annotations" / "panoptic_train2017.json").write_text("{")
    segments_of.cache_clear()
    with pytest.raises(SourceError, match=r"panoptic_train2017\.json is cut off"):
        sources.get("coco").meaning(base)


def test_behind_a_url_it_is_the_same(tmp_path: Path, bucket: str) -> None:
    trees.same_behind_url("coco", make_coco(tmp_path), f"{bucket}/coco")
