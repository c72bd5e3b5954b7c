import os
import shutil
from pathlib import Path

import pytest
import trees
from bad_images import make_voc

from featstore import sources
from featstore.errors import SourceError
from featstore.records import ImageRecord, ObjectRecord, Problem


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


def test_what_the_first_part_lacks_comes_from_the_second(tmp_path: Path) -> None:
    make_voc(tmp_path, images=6)
    old, new = tmp_path / "VOC2007", tmp_path / "VOC2012"
    shutil.copy(new / "JPEGImages" / "2012_000000.jpg", old / "JPEGImages")
    records, problems = read(tmp_path)
    assert problems == []
    record = records["2012_000000"]
    assert (record.path, record.part) == ("VOC2007/JPEGImages/2012_000000.jpg", "VOC2007")
    assert (record.split, len(record.objects)) == ("train", 2)
    assert record.mask_path == "VOC2012/SegmentationClass/2012_000000.png"


def test_two_endings_of_one_name_do_not_share_an_id(tmp_path: Path) -> None:
    make_voc(tmp_path, ("VOC2012",), images=6)
    jpegs = tmp_path / "VOC2012" / "JPEGImages"
    shutil.copy(jpegs / "2012_000000.jpg", jpegs / "2012_000000.JPEG")
    shutil.copy(jpegs / "2012_000000.jpg", jpegs / "2012_000001.jpeg")
    records, problems = read(tmp_path)
    assert set(records) == {f"2012_{number:06d}" for number in range(6)}
    assert [(problem.step, problem.image_id) for problem in problems] == [("image", "2012_000001")]


def test_a_problem_carries_the_id_that_its_image_has(tmp_path: Path) -> None:
    make_voc(tmp_path, images=6)
    old, new = tmp_path / "VOC2007", tmp_path / "VOC2012"
    shutil.copy(old / "JPEGImages" / "000001.jpg", new / "JPEGImages" / "000000.jpg")
    (old / "Annotations" / "000000.xml").write_text("<")
    records, problems = read(tmp_path)
    assert {problem.image_id for problem in problems} == {"VOC2007/000000"}
    assert {"VOC2007/000000", "VOC2012/000000"} <= set(records)


def test_a_name_that_is_not_utf8_and_a_tree_without_images_are_told_of(tmp_path: Path) -> None:
    make_voc(tmp_path, ("VOC2012",), images=6)
    jpegs = tmp_path / "VOC2012" / "JPEGImages"
    Path(os.fsdecode(os.fsencode(jpegs) + b"/\xff.jpg")).write_bytes(b"x")
    records, problems = read(tmp_path)
    assert len(records) == 6
    assert [(problem.step, problem.path.isascii()) for problem in problems] == [("image", True)]
    for path in jpegs.iterdir():
        path.unlink()
    with pytest.raises(SourceError, match="no image found"):
        read(tmp_path)


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
    assert "declares entities" in told["annotation", f"{bomb}.xml"]
    assert {p.error.split(":")[0] for p in problems if p.image_id == odd} == {
        "object 1 is left out",
        "object 2 is left out",
    }
    assert "missing while" in told["split", "train.txt"]
    assert "2012_999999" in told["split", "val.txt"]
    assert records[broken].objects == records[bomb].objects == records[odd].objects == ()


def test_entities_are_refused_in_every_encoding_and_a_bare_document_type_is_not(tmp_path: Path) -> None:
    truth = make_voc(tmp_path, ("VOC2012",), images=3)
    wide, bare, unknown = (tmp_path / "VOC2012" / "Annotations" / f"{stem}.xml" for stem in sorted(truth.images))
    entity = '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY b "bb">]><annotation>&b;</annotation>'
    wide.write_bytes(entity.encode("utf-16"))
    bare.write_text("<!DOCTYPE annotation>" + bare.read_text())
    unknown.write_text('<?xml version="1.0" encoding="martian"?><annotation/>')
    records, problems = read(tmp_path)
    told = {problem.image_id: problem.error for problem in problems if problem.step == "annotation"}
    assert "declares entities" in told[wide.stem]
    assert "martian" in told[unknown.stem]
    assert len(told) == 2
    assert [box.name for box in records[bare.stem].objects] == ["dog", "person"]


def test_missing_parts_of_an_annotation_have_defaults_and_fractions_are_kept(tmp_path: Path) -> None:
    truth = make_voc(tmp_path, ("VOC2012",), images=1)
    (stem,) = truth.images
    box = "<bndbox><ymax>9.5</ymax><xmin>1.25</xmin><ymin>2</ymin><xmax>1.25</xmax></bndbox>"
    objects = f"<object><name> cat </name>{box}</object><object>{box}</object><object><name>dog</name></object>"
    (tmp_path / "VOC2012" / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{objects}</annotation>")
    records, problems = read(tmp_path)
    assert records[stem].objects == (ObjectRecord("cat", 1.25, 2.0, 1.25, 9.5, False, False, False, None),)
    assert [p.error.rpartition("it has no ")[2] for p in problems if p.step == "annotation"] == ["class name", "bndbox"]


def test_lists_with_columns_blank_lines_marks_and_carriage_returns(tmp_path: Path) -> None:
    make_voc(tmp_path, ("VOC2012",), images=4)
    part = tmp_path / "VOC2012"
    shutil.copy(part / "JPEGImages" / "2012_000000.jpg", part / "JPEGImages" / "two words.JPG")
    shutil.rmtree(part / "ImageSets" / "Segmentation")
    for name in ("train", "test"):
        (part / "ImageSets" / "Main" / f"{name}.txt").write_bytes(b"")
    text = "\ufeff2012_000000  1\r\n\r\n2012_000001\t-1\r\ntwo words\r\n2012_000001"
    (part / "ImageSets" / "Main" / "val.txt").write_bytes(text.encode())
    (part / "ImageSets" / "Main" / "trainval.txt").write_bytes(b"2012_000003\n")
    records, problems = read(tmp_path)
    assert problems == []
    assert {stem: (record.split, record.splits) for stem, record in records.items()} == {
        "2012_000000": ("val", ("main/val",)),
        "2012_000001": ("val", ("main/val",)),
        "2012_000002": (None, ()),
        "2012_000003": (None, ("main/trainval",)),
        "two words": ("val", ("main/val",)),
    }


def test_the_main_list_decides_over_the_segmentation_list(tmp_path: Path) -> None:
    make_voc(tmp_path, ("VOC2012",), images=3)
    lists = tmp_path / "VOC2012" / "ImageSets"
    (lists / "Segmentation" / "val.txt").write_text("2012_000000\n2012_000002\n")
    (lists / "Main" / "test.txt").write_text("")
    (lists / "Segmentation" / "test.txt").write_text("")
    records, _ = read(tmp_path)
    assert {stem: record.split for stem, record in records.items()} == {
        "2012_000000": "train",
        "2012_000001": "val",
        "2012_000002": "val",
    }


@pytest.mark.parametrize(("absent", "lines"), [(20, 20), (21, 1)])
def test_images_listed_but_absent_are_told_one_by_one_until_they_are_many(
    tmp_path: Path, absent: int, lines: int
) -> None:
    make_voc(tmp_path, ("VOC2012",), images=3)
    with (tmp_path / "VOC2012" / "ImageSets" / "Main" / "val.txt").open("a") as file:
        file.write("".join(f"gone_{number}\n" for number in range(absent)) * 2)
    records, problems = read(tmp_path)
    wrong = [problem for problem in problems if problem.path.endswith("Main/val.txt")]
    assert len(wrong) == lines
    assert "gone_0" in wrong[0].error
    assert len(records) == 3
    if lines == 1:
        assert "21 of 22 images" in wrong[0].error
    else:
        assert [problem.image_id for problem in wrong] == [f"gone_{number}" for number in range(absent)]


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


def test_sbd_s_masks_fill_in_and_its_list_is_a_split(tmp_path: Path) -> None:
    make_voc(tmp_path, ("VOC2012",), images=6)
    part = tmp_path / "VOC2012"
    records, _ = read(tmp_path)
    masked = sorted(stem for stem, record in records.items() if record.mask_path)
    bare = sorted(stem for stem, record in records.items() if not record.mask_path)
    assert masked
    assert len(bare) > 1
    (part / "SegmentationClassAug").mkdir()
    for stem in (masked[0], bare[0]):
        shutil.copy(part / "SegmentationClass" / f"{masked[0]}.png", part / "SegmentationClassAug" / f"{stem}.png")
    lines = [f"/JPEGImages/{stem}.jpg /SegmentationClassAug/{stem}.png\n" for stem in (masked[0], *bare)]
    (part / "ImageSets" / "Segmentation" / "trainaug.txt").write_text("".join(lines))
    records, problems = read(tmp_path)
    assert records[masked[0]].mask_path == f"VOC2012/SegmentationClass/{masked[0]}.png"
    assert records[bare[0]].mask_path == f"VOC2012/SegmentationClassAug/{bare[0]}.png"
    listed = {stem for stem, record in records.items() if "segmentation/trainaug" in record.splits}
    assert listed == {masked[0], *bare}
    assert [(p.path, p.step) for p in problems] == [("VOC2012/SegmentationClassAug", "mask")]
    assert problems[0].error.startswith(
        f"{len(bare) - 1} of {len(bare) + 1} images of the augmented lists have no mask"
    )


def test_sbd_s_own_release_is_known_by_name(tmp_path: Path) -> None:
    (tmp_path / "benchmark_RELEASE" / "dataset" / "cls").mkdir(parents=True)
    with pytest.raises(SourceError, match=r"SBD's own files: convert dataset/cls/\*\.mat to PNG"):
        read(tmp_path)


@pytest.mark.parametrize("place", ["", "VOC2012", "VOC2012/ImageSets"])
def test_lists_of_paths_are_splits_of_their_own_name(tmp_path: Path, place: str) -> None:
    make_voc(tmp_path / "VOCdevkit")
    names = [
        "VOC2012/JPEGImages/2012_000000.jpg",
        "VOC2012/JPEGImages/2012_000003.jpg",
        "VOC2007/JPEGImages/000001.jpg",
    ]
    lines = "".join(f"data/VOCdevkit/{name}\n" for name in [*names, "VOC2012/JPEGImages/gone.jpg"])
    (tmp_path / "VOCdevkit" / place / "mine.txt").write_text(lines)
    (tmp_path / "VOCdevkit" / place / "readme.txt").write_text("see VOC2012/JPEGImages\n")
    records, problems = read(tmp_path)
    assert {stem for stem, record in records.items() if "list/mine" in record.splits} == {
        *("2012_000000", "2012_000003", "000001"),
    }
    assert records["2012_000000"].split == "train"
    assert [(p.path, p.step, p.error.split(":")[0]) for p in problems] == [
        (f"VOCdevkit/{place}/mine.txt".replace("//", "/"), "split", "1 of 4 images listed are not here")
    ]


def test_the_authors_list_chooses_exactly_their_images(shared: Path, tmp_path: Path) -> None:
    """Their file as it is, with an empty image for each fortieth line and some that it does not name."""
    lines = (shared / "data" / "dvt-demo" / "voc_train.txt").read_text().split()
    kept = lines[::40]
    for line in kept:
        path = tmp_path / line.removeprefix("data/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    for year, stem in (("VOC2007", "nobody"), ("VOC2012", "someone")):
        (tmp_path / "VOCdevkit" / year / "JPEGImages" / f"{stem}.jpg").write_bytes(b"")
    shutil.copyfile(shared / "data" / "dvt-demo" / "voc_train.txt", tmp_path / "VOCdevkit" / "voc_train.txt")
    records, problems = read(tmp_path)
    chosen = {f"data/{record.path}" for record in records.values() if "list/voc_train" in record.splits}
    assert chosen == set(kept)
    assert len(records) == len(kept) + 2
    told = next(p for p in problems if p.path == "VOCdevkit/voc_train.txt")
    assert told.error.startswith(f"{len(lines) - len(kept):,} of 20,474 images listed are not here")


def test_behind_a_url_lists_of_paths_are_read_too(tmp_path: Path, bucket: str) -> None:
    make_voc(tmp_path / "VOCdevkit", ("VOC2012",), images=3)
    (tmp_path / "VOCdevkit" / "mine.txt").write_text("VOCdevkit/VOC2012/JPEGImages/2012_000001.jpg\n")
    trees.same_behind_url("voc", tmp_path, f"{bucket}/voc")
