import shutil
from pathlib import Path

import pytest
from bad_images import make_voc

from featstore import sources
from featstore.errors import SourceError
from featstore.records import ImageRecord, Problem


def read(folder: Path) -> tuple[dict[str, ImageRecord], list[Problem]]:
    found = list(sources.get("voc").read(folder))
    records = [item for item in found if isinstance(item, ImageRecord)]
    assert len({record.image_id for record in records}) == len(records)
    return {record.image_id: record for record in records}, [item for item in found if isinstance(item, Problem)]


@pytest.mark.parametrize("years", [("VOC2007",), ("VOC2012",), ("VOC2007", "VOC2012")])
def test_everything_the_tree_holds_is_read(tmp_path: Path, years: tuple[str, ...]) -> None:
    truth = make_voc(tmp_path, years, images=6)
    records, problems = read(tmp_path)
    assert problems == []
    assert {key: record.path for key, record in records.items()} == truth.images
    for stem, record in records.items():
        assert set(record.splits) == truth.splits[stem]
        assert f"main/{record.split}" in truth.splits[stem]
        boxes = [
            (b.name, int(b.xmin), int(b.ymin), int(b.xmax), int(b.ymax), b.difficult, b.truncated)
            for b in record.objects
        ]
        assert boxes == truth.boxes[stem]
        assert {b.pose for b in record.objects} == {"Left"}
        assert (record.mask_path is not None) == (stem in truth.masks)
        if record.mask_path and record.instance_path:
            assert (tmp_path / record.mask_path).is_file()
            assert (tmp_path / record.instance_path).is_file()
        assert record.part in years


def test_the_devkit_its_parent_and_one_part_are_all_understood(tmp_path: Path) -> None:
    make_voc(tmp_path / "VOCdevkit", ("VOC2007",))
    for folder in (tmp_path, tmp_path / "VOCdevkit", tmp_path / "VOCdevkit" / "VOC2007"):
        assert sources.detect(folder).layout == "voc"
        records, _ = read(folder)
        assert len(records) == 6
        assert all((folder / record.path).is_file() for record in records.values())
    with pytest.raises(SourceError, match="which expects VOCdevkit"):
        read(tmp_path / "VOCdevkit" / "VOC2007" / "Annotations")


def test_the_same_name_in_two_parts(tmp_path: Path) -> None:
    make_voc(tmp_path)
    old, new = tmp_path / "VOC2007", tmp_path / "VOC2012"
    shutil.copy(old / "JPEGImages" / "000000.jpg", new / "JPEGImages")
    shutil.copy(old / "JPEGImages" / "000001.jpg", new / "JPEGImages" / "000002.jpg")
    with (new / "ImageSets" / "Main" / "val.txt").open("a") as file:
        file.write("000000\n")
    records, problems = read(tmp_path)
    assert problems == []
    assert set(records["000000"].splits) >= {"main/train", "main/val"}
    assert "000002" not in records
    assert {"VOC2007/000002", "VOC2012/000002"} <= set(records)
    assert len(records) == 13


def test_what_is_wrong_is_told_and_the_rest_is_read(tmp_path: Path) -> None:
    truth = make_voc(tmp_path, ("VOC2012",), images=6)
    part = tmp_path / "VOC2012"
    notes = {stem: part / "Annotations" / f"{stem}.xml" for stem in truth.images}
    broken, odd, bomb, *_ = sorted(notes)
    notes[broken].write_text("<annotation><object>")
    notes[odd].write_text(notes[odd].read_text().replace("<xmin>3<", "<xmin>three<").replace("<xmax>60<", "<xmax>0<"))
    notes[bomb].write_text('<!DOCTYPE a [<!ENTITY b "bb">]><annotation>&b;</annotation>')
    (part / "ImageSets" / "Main" / "train.txt").unlink()
    with (part / "ImageSets" / "Main" / "val.txt").open("a") as file:
        file.write("2012_999999\r\n\n")
    records, problems = read(tmp_path)
    assert len(records) == 6
    told = {(problem.step, Path(problem.path).name): problem.error for problem in problems}
    assert "broken XML" in told["annotation", f"{broken}.xml"]
    assert "document type" in told["annotation", f"{bomb}.xml"]
    assert {p.error.split(":")[0] for p in problems if p.image_id == odd} == {
        "object 1 is left out",
        "object 2 is left out",
    }
    assert "missing while" in told["split", "train.txt"]
    assert "2012_999999" in told["split", "val.txt"]
    assert records[broken].objects == records[bomb].objects == records[odd].objects == ()


def test_no_lists_at_all_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    make_voc(tmp_path, ("VOC2007",))
    shutil.rmtree(tmp_path / "VOC2007" / "ImageSets")
    records, problems = read(tmp_path)
    assert {record.split for record in records.values()} == {None}
    assert [problem.step for problem in problems] == ["split"]


def test_real_photographs_in_voc_layout(shared: Path) -> None:
    folder = shared / "data" / "coco-voc" / "VOCdevkit"
    records, problems = read(folder)
    assert problems == []
    assert len(records) == 100
    assert sorted(record.split or "" for record in records.values()) == ["train"] * 70 + ["val"] * 30
    assert all(record.mask_path for record in records.values())
    assert sum(len(record.objects) for record in records.values()) > 100
