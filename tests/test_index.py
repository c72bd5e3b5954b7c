"""Indexing into the manifest: rows, revisions, what is read again, and what is told of files that cannot be read."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_images import READABLE, UNREADABLE, make_voc, photo, write_zoo
from PIL import Image

from featstore import members
from featstore.errors import InputError, SourceError
from featstore.index import index_dataset
from featstore.query import restricted


def rows(root: Path, dataset: str, sql: str) -> list[tuple[Any, ...]]:
    with restricted(root, dataset) as connection:
        return connection.execute(sql).fetchall()


def test_a_voc_tree_is_in_the_manifest_as_it_is_on_disk(tmp_path: Path) -> None:
    truth = make_voc(tmp_path / "VOCdevkit")
    report = index_dataset(tmp_path / "store", "voc", tmp_path / "VOCdevkit")
    assert (report.layout, report.images, report.added, report.revision, report.problems) == ("voc", 12, 12, 1, ())
    found = rows(
        tmp_path / "store",
        "voc",
        "SELECT image_id, path, sha256, bytes, width, height, mode, splits, mask_path FROM images",
    )
    assert {row[0]: row[1] for row in found} == truth.images
    for image_id, path, sha256, size, width, height, mode, splits, mask in found:
        data = (truth.folder / path).read_bytes()
        assert (sha256, size) == (hashlib.sha256(data).hexdigest(), len(data))
        assert (width, height, mode) == (60, 40, "RGB")
        assert set(splits) == truth.splits[image_id]
        assert (mask is not None) == (image_id in truth.masks)
    boxes = rows(
        tmp_path / "store",
        "voc",
        "SELECT image_id, class, xmin, ymin, xmax, ymax, difficult, truncated FROM objects ORDER BY image_id, number",
    )
    expected = [(stem, *box) for stem in sorted(truth.boxes) for box in truth.boxes[stem]]
    assert boxes == expected


def test_indexing_again_reads_only_what_changed_and_records_a_revision(tmp_path: Path) -> None:
    truth, root = make_voc(tmp_path / "voc", ("VOC2007",)), tmp_path / "store"
    index_dataset(root, "voc", truth.folder)
    again = index_dataset(root, "voc", truth.folder)
    assert (again.revision, again.hashed, again.added, again.changed, again.removed) == (1, 0, 0, 0, 0)

    part = truth.folder / "VOC2007"
    photo(seed=99).save(part / "JPEGImages" / "000000.jpg")
    (part / "JPEGImages" / "000001.jpg").unlink()
    notes = part / "Annotations" / "000002.xml"
    notes.write_text(notes.read_text().replace("dog", "cat"))
    photo(seed=98).save(part / "JPEGImages" / "000077.jpg")
    for path in (part / "ImageSets" / "Main").glob("*.txt"):
        path.write_text(path.read_text().replace("000001\n", ""))
    later = index_dataset(root, "voc", None)
    assert (later.revision, later.hashed, later.added, later.changed, later.removed) == (2, 2, 1, 2, 1)
    assert rows(root, "voc", "SELECT DISTINCT class FROM objects WHERE image_id = '000002' ORDER BY 1") == [
        ("cat",),
        ("person",),
    ]
    history = "SELECT first_revision, last_revision FROM manifest.images WHERE image_id = '000000' ORDER BY 1"
    assert rows(root, "voc", history) == [(1, 1), (2, None)]
    assert rows(root, "voc", "SELECT revision, added, changed, removed, images FROM revisions ORDER BY 1") == [
        (1, 6, 0, 0, 6),
        (2, 1, 2, 1, 6),
    ]


def test_a_touched_file_is_read_once_and_changes_nothing(tmp_path: Path) -> None:
    truth, root = make_voc(tmp_path / "voc", ("VOC2007",)), tmp_path / "store"
    index_dataset(root, "voc", truth.folder)
    os.utime(truth.folder / truth.images["000003"], ns=(1, 1))
    touched = index_dataset(root, "voc", None)
    assert (touched.hashed, touched.changed, touched.revision) == (1, 0, 1)
    assert index_dataset(root, "voc", None).hashed == 0


def test_masks_are_read_again_where_they_changed_or_could_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def logged(path: str | Path) -> bytes:
        read.append(Path(path).relative_to(part).as_posix())
        return members.read_bytes(path)

    monkeypatch.setattr("featstore.index.read_bytes", logged)
    truth, root = make_voc(tmp_path / "voc", ("VOC2007",)), tmp_path / "store"
    part = truth.folder / "VOC2007"
    labels, objects = (f"{name}/000002.png" for name in ("SegmentationClass", "SegmentationObject"))

    def again() -> tuple[set[str], list[str | None], object]:
        read.clear()
        report = index_dataset(root, "voc", truth.folder)
        told = [problem.image_id for problem in report.problems]
        return set(read), told, rows(root, "voc", "SELECT mask_path FROM images WHERE image_id = '000002'")[0][0]

    kept = f"VOC2007/{labels}"
    assert {labels, objects, "JPEGImages/000002.jpg"} < again()[0]
    assert again() == (set(), [], kept)
    os.utime(part / objects, ns=(1, 1))
    assert again() == ({labels, objects}, [], kept)
    assert again() == (set(), [], kept)
    good = (part / labels).read_bytes()
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(part / labels)
    for _ in range(2):  # what was told of is told again
        assert again() == ({labels, objects}, ["000002"], None)
    (part / labels).unlink()
    assert again()[1:] == ([], None)
    (part / labels).write_bytes(good)
    assert again() == ({labels, objects}, [], kept)
    assert again() == (set(), [], kept)
    Image.fromarray(np.zeros((30, 20, 3), np.uint8)).save(part / "JPEGImages" / "000002.jpg")
    assert again() == ({labels, objects, "JPEGImages/000002.jpg"}, ["000002", "000002"], None)


def test_a_moved_folder_keeps_its_images(tmp_path: Path) -> None:
    truth, root = make_voc(tmp_path / "voc", ("VOC2007",)), tmp_path / "store"
    index_dataset(root, "voc", truth.folder)
    shutil.move(truth.folder, tmp_path / "elsewhere")
    moved = index_dataset(root, "voc", tmp_path / "elsewhere")
    assert (moved.added, moved.changed, moved.removed) == (0, 0, 0)
    assert rows(root, "voc", "SELECT source FROM datasets") == [(str(tmp_path / "elsewhere"),)]


def test_every_bad_file_works_or_is_told_of(tmp_path: Path) -> None:
    root = tmp_path / "store"
    report = index_dataset(root, "zoo", write_zoo(tmp_path / "zoo"))
    told = {problem.path: (problem.step, problem.error) for problem in report.problems}
    assert set(told) == {"empty.jpg", "text.jpg"}  # a truncated file shows itself when it is decoded
    assert told["empty.jpg"] == ("image", "the file is empty")
    stored = {row[0] for row in rows(root, "zoo", "SELECT image_id FROM images")}
    assert stored == set(READABLE) | (set(UNREADABLE) - set(told))
    assert rows(root, "zoo", "SELECT count(*) FROM failures WHERE digest IS NULL") == [(2,)]
    (tmp_path / "zoo" / "empty.jpg").unlink()
    (tmp_path / "zoo" / "text.jpg").unlink()
    assert index_dataset(root, "zoo", None).problems == ()
    assert rows(root, "zoo", "SELECT count(*) FROM failures") == [(0,)]


def test_a_mask_of_another_size_is_left_out_and_told_of(tmp_path: Path) -> None:
    truth, root = make_voc(tmp_path / "voc", ("VOC2007",)), tmp_path / "store"
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(truth.folder / "VOC2007" / "SegmentationClass" / "000002.png")
    report = index_dataset(root, "voc", truth.folder)
    assert [(p.step, p.image_id) for p in report.problems] == [("mask", "000002")]
    assert "5×5" in report.problems[0].error
    assert rows(root, "voc", "SELECT mask_path, instance_path IS NULL FROM images WHERE image_id = '000002'") == [
        (None, False)
    ]


def test_wrong_requests_say_what_to_do(tmp_path: Path) -> None:
    root = tmp_path / "store"
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no image found"):
        index_dataset(root, "x", tmp_path / "empty")
    with pytest.raises(SourceError, match="there is no folder"):
        index_dataset(root, "x", tmp_path / "nowhere")
    with pytest.raises(InputError, match="--source DIR"):
        index_dataset(root, "x", None)
    with pytest.raises(InputError, match="cannot name a data set"):
        index_dataset(root, "../x", tmp_path / "empty")
    with pytest.raises(SourceError, match="layout voc"):
        index_dataset(root, "x", tmp_path / "empty", layout="voc")
