"""Videos: DAVIS with its lists and masks, and plain folders of frames."""

import shutil
from pathlib import Path

import pytest
import trees
from trees import write, write_mask, write_photo

from featstore import sources
from featstore.errors import SourceError
from featstore.index import index_dataset
from featstore.sources.frames import frame_names


def make_davis(folder: Path) -> Path:
    base = folder / "DAVIS"
    for name in ("bear", "car"):
        for number in (0, 1, 10):
            write_photo(base / "JPEGImages" / "480p" / name / f"{number:05d}.jpg", seed=number)
            write_mask(base / "Annotations" / "480p" / name / f"{number:05d}.png", number)
    write_photo(base / "JPEGImages" / "Full-Resolution" / "bear" / "00000.jpg", 16, 12)
    write(base / "ImageSets" / "2017" / "train.txt", "bear\n")
    write(base / "ImageSets" / "2017" / "val.txt", "car\n")
    both = "".join(f"/JPEGImages/480p/car/{n:05d}.jpg /Annotations/480p/car/{n:05d}.png\n" for n in (0, 1))
    write(base / "ImageSets" / "480p" / "train.txt", both)
    return base


def test_sequences_splits_and_masks(tmp_path: Path) -> None:
    base = make_davis(tmp_path)
    for folder in (tmp_path, base):
        assert sources.detect(folder).layout == "davis"
        records, problems = trees.read("davis", folder)
        assert problems == []
        assert list(records) == [f"{name}/{frame}" for name in ("bear", "car") for frame in ("00000", "00001", "00010")]
        for name, record in records.items():
            assert record.label == name.split("/")[0]
            assert (folder / record.path).as_posix().endswith(f"JPEGImages/480p/{name}.jpg")
            assert record.mask_path == record.instance_path
            assert (folder / str(record.mask_path)).as_posix().endswith(f"Annotations/480p/{name}.png")
            assert (folder / str(record.mask_path)).is_file()
        assert (records["bear/00000"].split, records["bear/00000"].splits) == ("train", ("2017/train",))
        assert set(records["car/00000"].splits) == {"2017/val", "480p/train"}
    shutil.rmtree(base / "JPEGImages" / "480p")
    assert list(trees.read("davis", base)[0]) == ["bear/00000"]


def test_half_an_archive_and_sequences_that_a_list_alone_knows(tmp_path: Path) -> None:
    base = make_davis(tmp_path)
    shutil.rmtree(base / "JPEGImages" / "480p" / "car")
    (base / "JPEGImages" / "480p" / "bear" / "00010.jpg").unlink()
    records, problems = trees.read("davis", base)
    assert len(records) == 2
    told = [(problem.path, problem.step, problem.error.split(",")[0]) for problem in problems]
    assert told == [
        ("ImageSets/2017/val.txt", "split", "1 of 1 sequences listed are not in JPEGImages/480p"),
        ("ImageSets/480p/train.txt", "split", "1 of 1 sequences listed are not in JPEGImages/480p"),
        ("JPEGImages/480p", "image", "1 of 2 sequences in Annotations/480p have no frames here"),
        ("JPEGImages/480p/bear", "image", "1 of 3 masks in Annotations/480p/bear have no frame here: 00010"),
    ]
    with pytest.raises(SourceError, match=f"the folder to give is {base}$"):
        trees.read("davis", base / "JPEGImages" / "480p")


def test_youtube_vos_has_no_resolutions(tmp_path: Path) -> None:
    write_photo(tmp_path / "train" / "JPEGImages" / "003234408d" / "00005.jpg")
    write_mask(tmp_path / "train" / "Annotations" / "003234408d" / "00005.png")
    records, problems = trees.read("davis", tmp_path)
    assert problems == []
    assert records["003234408d/00005"].mask_path == "train/Annotations/003234408d/00005.png"
    assert sources.detect(tmp_path / "train").layout == "davis"


def test_frames_come_in_the_order_of_their_numbers_here_and_by_name(tmp_path: Path) -> None:
    for name in ("a/2", "a/10", "a/1", "b/shot1_9", "b/shot1_11", "b/shot10_1"):
        write_photo(tmp_path / "clips" / "train" / f"{name}.jpg")
    write_photo(tmp_path / "clips" / "intro" / "07.jpg")
    records, problems = trees.read("frames", tmp_path / "clips")
    assert problems == []
    names = {name: (record.path, record.split, record.label) for name, record in records.items()}
    assert names == {
        "intro/07": ("intro/07.jpg", None, "intro"),
        "a/01": ("train/a/1.jpg", "train", "a"),
        "a/02": ("train/a/2.jpg", "train", "a"),
        "a/10": ("train/a/10.jpg", "train", "a"),
        "b/shot01_09": ("train/b/shot1_9.jpg", "train", "b"),
        "b/shot01_11": ("train/b/shot1_11.jpg", "train", "b"),
        "b/shot10_01": ("train/b/shot10_1.jpg", "train", "b"),
    }
    assert list(names)[1:] == sorted(list(names)[1:])
    assert sources.detect(tmp_path / "clips").layout == "folder"
    with pytest.raises(SourceError, match="layout frames expects"):
        (tmp_path / "empty").mkdir()
        trees.read("frames", tmp_path / "empty")


def test_a_source_keeps_the_layout_that_read_it(tmp_path: Path) -> None:
    write_photo(tmp_path / "clips" / "a" / "2.jpg")
    store = tmp_path / "store"
    assert index_dataset(store, "clips", tmp_path / "clips", "frames").layout == "frames"
    again = index_dataset(store, "clips", tmp_path / "clips")
    assert (again.layout, again.revision) == ("frames", 1)
    assert index_dataset(store, "clips", tmp_path / "clips", "folder").layout == "folder"


def test_numbers_that_would_be_one_name_stay_as_they_are() -> None:
    assert frame_names(["2", "10"]) == {"2": "02", "10": "10"}
    assert list(frame_names(["b2", "b10", "a"]).values()) == ["a", "b02", "b10"]
    assert frame_names(["2", "02", "10"]) == {"02": "02", "10": "10", "2": "2"}
    assert frame_names([]) == {}


def test_real_frames(shared: Path) -> None:
    records, problems = trees.read("frames", shared / "data" / "dvt-demo" / "mallard-water")
    assert problems == []
    assert list(records) == [f"{number:05d}" for number in range(0, 57, 8)]
    assert {record.label for record in records.values()} == {None}


def test_behind_a_url_it_is_the_same(tmp_path: Path, bucket: str) -> None:
    trees.same_behind_url("davis", make_davis(tmp_path), f"{bucket}/davis")
