"""ADE20K: both releases, against trees made here, and the formula of its masks against a plain loop over real pixels."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import trees
from bad_images import encoded
from numpy.typing import NDArray
from PIL import Image
from trees import write, write_mask, write_photo

from featstore import sources
from featstore.errors import DecodeError, SourceError
from featstore.masks import probe_mask, read_mask
from featstore.records import ImageRecord, Problem

INFO = "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1\t1\t1\t1\twall\n2\t0.1\t1\t1\t1\tbuilding, edifice\n"


def read(folder: Path) -> tuple[dict[str, ImageRecord], list[Problem]]:
    return trees.read("ade20k", folder)


def make_challenge(folder: Path) -> Path:
    base = folder / "ADEChallengeData2016"
    for split, word in (("training", "train"), ("validation", "val")):
        for number in (1, 2):
            name = f"ADE_{word}_{number:08d}"
            write_photo(base / "images" / split / f"{name}.jpg", seed=number)
            write_mask(base / "annotations" / split / f"{name}.png", number)
    write(base / "objectInfo150.txt", INFO)
    write(base / "sceneCategories.txt", "ADE_train_00000001 airport_terminal\nADE_val_00000002 misc\n")
    return base


def test_the_challenge_has_splits_scenes_masks_and_classes(tmp_path: Path) -> None:
    base = make_challenge(tmp_path)
    for folder in (tmp_path, base):
        assert sources.detect(folder).layout == "ade20k"
        records, problems = read(folder)
        assert problems == []
        assert list(records) == [f"ADE_{word}_{number:08d}" for word in ("train", "val") for number in (1, 2)]
        assert [record.split for record in records.values()] == ["train", "train", "val", "val"]
        assert [record.label for record in records.values()] == ["airport_terminal", None, None, "misc"]
        for record in records.values():
            assert record.mask_path
            assert int(read_mask((folder / record.mask_path).read_bytes()).max()) == int(record.image_id[-1])
            assert (folder / record.path).is_file()
        meaning = sources.get("ade20k").meaning(folder)
        assert meaning.mask_classes == ("other", "wall", "building")
        assert (meaning.mask_ignored, meaning.mask_coding) == ((0,), "index")


def test_a_list_of_classes_that_is_cut_off_names_none(tmp_path: Path) -> None:
    base = make_challenge(tmp_path)
    write(base / "objectInfo150.txt", INFO.replace("\n1\t", "\n3\t"))
    assert sources.get("ade20k").meaning(base).mask_classes is None
    (base / "objectInfo150.txt").unlink()
    assert sources.get("ade20k").meaning(base).mask_classes is None


def test_half_an_archive_is_told_with_its_counts(tmp_path: Path) -> None:
    base = make_challenge(tmp_path)
    shutil.rmtree(base / "images" / "training")
    (base / "annotations" / "validation" / "ADE_val_00000001.png").unlink()
    records, problems = read(base)
    assert [record.mask_path is None for record in records.values()] == [True, False]
    assert [(p.path, p.step) for p in problems] == [("images/training", "image"), ("annotations/validation", "mask")]
    assert problems[0].error.startswith(
        "2 of 2 masks in annotations/training have no image here, extract it again: ADE_tr"
    )
    assert problems[1].error.startswith("1 of 2 images in images/validation have no mask here")
    shutil.rmtree(base / "images")
    with pytest.raises(SourceError, match="no image found"):
        read(base)


def test_a_folder_too_deep_is_led_to_the_right_one(tmp_path: Path) -> None:
    base = make_challenge(tmp_path)
    with pytest.raises(SourceError, match=f"the folder to give is {base}$"):
        read(base / "images" / "training")
    shutil.copytree(base, tmp_path / "again")
    with pytest.raises(SourceError, match=r"one of its sub-folders: ADEChallengeData2016, again$"):
        read(tmp_path)
    told: list[str] = []
    for folder in (tmp_path, base / "images" / "training"):
        assert sources.detect(folder, told.append).layout == "folder"
    assert [line.split(":")[0] for line in told] == [
        f"{base} is of layout ade20k",
        f"{tmp_path / 'again'} is of layout ade20k",
        f"{base / 'images' / 'training'} is a part of {base}, of layout ade20k",
    ]


def box(name: str, number: int, x: object, y: object, level: int = 0, **more: str) -> dict[str, object]:
    parts = {"hasparts": [], "ispartof": [], "part_level": level}
    return {"id": 0, "name": name, "name_ndx": number, "polygon": {"x": x, "y": y}, "parts": parts, **more}


def make_full(folder: Path) -> Path:
    place = folder / "ADE20K_2021_17_01" / "images" / "ADE" / "training" / "urban" / "forest" / "broadleaf"
    colours = np.zeros((6, 8, 3), np.uint8)
    colours[2:4, 1:5] = (17, 5, 200)
    write_photo(place / "ADE_train_1.jpg")
    write(place / "ADE_train_1_seg.png", encoded(Image.fromarray(colours), "PNG"))
    write(place / "ADE_train_1_parts_1.png", b"")
    write(place / "ADE_train_1" / "instance_000_ADE_train_1.jpg", b"no photograph")
    objects = [
        box("car, auto", 261, [5, 1, 1, 5], [2, 2, 4, 4], crop="1", occluded="yes"),
        box("wheel", 7, [1, 2], [1, 2], level=1),
        box("caf\xe9", 2, [], []),
    ]
    note = json.dumps({"annotation": {"object": objects}}, ensure_ascii=False)
    write(place / "ADE_train_1.json", note.encode("latin-1"))
    return place


def test_the_full_release_has_polygons_bounds_and_colours(tmp_path: Path) -> None:
    place = make_full(tmp_path)
    assert sources.detect(tmp_path).layout == "ade20k"
    records, problems = read(tmp_path)
    (record,) = records.values()
    assert (record.image_id, record.part, record.label, record.split) == (
        *("ADE_train_1", "urban", "forest/broadleaf", "train"),
    )
    assert [(p.step, p.image_id) for p in problems] == [("annotation", "ADE_train_1")]
    (car,) = record.objects
    assert (car.name, car.xmin, car.ymin, car.xmax, car.ymax) == ("car, auto", 1, 2, 5, 4)
    assert (car.truncated, car.occluded, car.difficult) == (True, True, False)
    meaning = sources.get("ade20k").meaning(tmp_path)
    assert meaning.mask_classes is not None
    assert len(meaning.mask_classes) == 262
    assert (meaning.mask_classes[261], meaning.mask_classes[2], meaning.mask_classes[7]) == ("car, auto", "caf\xe9", "")
    assert record.mask_path
    mask = read_mask((tmp_path / record.mask_path).read_bytes(), meaning.mask_coding)
    expected = np.zeros((6, 8), np.uint16)
    expected[2:4, 1:5] = 261
    assert mask.dtype == np.uint16
    assert (mask == expected).all()
    (place / "ADE_train_1.json").write_text("{")
    (place / "ADE_train_1_seg.png").unlink()
    records, problems = read(tmp_path)
    assert records["ADE_train_1"].mask_path is None
    assert [(p.step, p.error.split(":")[0]) for p in problems] == [
        ("annotation", "broken JSON, its boxes are left out"),
        ("mask", "1 of 1 images have no *_seg.png beside them, extract it again"),
    ]


def test_colours_need_their_coding_and_a_coding_its_colours() -> None:
    grey = encoded(Image.new("L", (3, 3)), "PNG")
    colours = encoded(Image.new("RGB", (3, 3)), "PNG")
    for check in (probe_mask, read_mask):
        with pytest.raises(DecodeError, match="coded as ade20k holds colours"):
            check(grey, "ade20k")
        with pytest.raises(DecodeError, match="one index a pixel"):
            check(colours)
        with pytest.raises(DecodeError, match="coded as 'martian', which this featstore does not know"):
            check(colours, "martian")


def decode_slowly(path: Path) -> NDArray[np.int64]:
    """The release's formula, a pixel at a time, on every 16th row and column."""
    with Image.open(path) as image:
        return np.array(
            [
                [(p[0] // 10) * 256 + p[1] for p in (image.getpixel((x, y)) for x in range(0, image.width, 16))]
                for y in range(0, image.height, 16)
            ]
        )


def test_real_images_of_the_full_release(shared: Path) -> None:
    folder = shared / "data" / "ade20k-sample"
    assert sources.detect(folder).layout == "ade20k"
    records, problems = read(folder)
    assert problems == []
    assert {record.label for record in records.values()} == {"street"}
    classes = sources.get("ade20k").meaning(folder).mask_classes
    assert classes is not None
    for record in records.values():
        assert record.mask_path
        mask = read_mask((folder / record.mask_path).read_bytes(), "ade20k")
        assert (mask[::16, ::16] == decode_slowly(folder / record.mask_path)).all()
        shown = {classes[number] for number in np.unique(mask).tolist() if number}
        assert shown == {box.name for box in record.objects}
        for name in ("van", "tree", "road, route"):
            rows, columns = np.nonzero(mask == classes.index(name)) if name in classes else ([], [])
            own = [box for box in record.objects if box.name == name]
            if not own:
                continue
            bounds = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            union = (
                min(b.xmin for b in own),
                min(b.ymin for b in own),
                max(b.xmax for b in own),
                max(b.ymax for b in own),
            )
            assert np.abs(np.array(bounds) - union).max() <= 3  # the release rounds, and what lies in front covers


def test_behind_a_url_both_releases_are_the_same(tmp_path: Path, bucket: str) -> None:
    make_challenge(tmp_path / "challenge")
    make_full(tmp_path / "full")
    for name in ("challenge", "full"):
        trees.same_behind_url("ade20k", tmp_path / name, f"{bucket}/{name}")
