"""ImageNet: folders of classes, the flat val with labels from each place they may be, and Kaggle's layout."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import trees
from trees import write, write_photo

from featstore import sources
from featstore.errors import SourceError

TENCH, FISH = "n01440764", "n01443537"


def make_train(base: Path) -> None:
    for label in (TENCH, FISH):
        for number in (1, 22):
            write_photo(base / "train" / label / f"{label}_{number}.JPEG", seed=number)


def make_val(base: Path) -> None:
    for number in (1, 2, 3):
        write_photo(base / "val" / f"ILSVRC2012_val_{number:08d}.JPEG", seed=number)


def labels(folder: Path) -> dict[str, str | None]:
    records, problems = trees.read("imagenet", folder)
    assert problems == []
    return {name: record.label for name, record in records.items() if record.split == "val"}


WANTED = {f"ILSVRC2012_val_{number:08d}": label for number, label in ((1, FISH), (2, TENCH), (3, FISH))}


def test_classes_are_folders(tmp_path: Path) -> None:
    base = tmp_path / "imagenet"
    make_train(base)
    write_photo(base / "val" / TENCH / "ILSVRC2012_val_00000007.JPEG")
    for folder in (tmp_path, base):
        assert sources.detect(folder).layout == "imagenet"
        records, problems = trees.read("imagenet", folder)
        assert problems == []
        told = {name: (record.split, record.label, record.splits) for name, record in records.items()}
        assert told == {
            **{f"{c}_{n}": ("train", c, ("imagenet/train",)) for c in (TENCH, FISH) for n in (1, 22)},
            "ILSVRC2012_val_00000007": ("val", TENCH, ("imagenet/val",)),
        }
        assert all((folder / record.path).is_file() for record in records.values())
    one, _ = trees.read("imagenet", base / "train")
    assert {record.split for record in one.values()} == {"train"}
    (base / "notes").mkdir()
    with pytest.raises(SourceError, match=f"not of layout imagenet, .*the folder to give is {base}$"):
        trees.read("imagenet", base / "notes")


def test_val_has_its_labels_from_kaggle_s_table(tmp_path: Path) -> None:
    data = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    make_train(data)
    make_val(data)
    write_photo(data / "test" / "ILSVRC2012_test_00000001.JPEG")
    lines = [f"{name},{label} 1 2 7 5 " for name, label in WANTED.items()]
    lines[0] += f"{FISH} 0 0 3 3 "
    write(tmp_path / "LOC_val_solution.csv", "ImageId,PredictionString\n" + "\n".join(lines))
    write(
        tmp_path / "LOC_train_solution.csv", f"ImageId,PredictionString\n{TENCH}_1,{TENCH} 2 2 4 4\nbroken,{FISH} 1\n"
    )
    write(tmp_path / "LOC_synset_mapping.txt", f"{TENCH} tench\n{FISH} goldfish\n")
    records, problems = trees.read("imagenet", tmp_path)
    assert [(p.path, p.error[:7]) for p in problems] == [("LOC_train_solution.csv", "1 lines")]
    assert {name: r.label for name, r in records.items() if r.split == "val"} == WANTED
    assert (records["ILSVRC2012_test_00000001"].split, records["ILSVRC2012_test_00000001"].label) == ("test", None)
    boxes = [(b.name, b.xmin, b.ymin, b.xmax, b.ymax) for b in records["ILSVRC2012_val_00000001"].objects]
    assert boxes == [(FISH, 1, 2, 7, 5), (FISH, 0, 0, 3, 3)]
    assert [len(record.objects) for record in records.values() if record.label == TENCH] == [1, 0, 1]
    (data / "val" / "ILSVRC2012_val_00000003.JPEG").unlink()
    told = [p for p in trees.read("imagenet", tmp_path)[1] if p.step == "image"]
    assert told[0].error.startswith(
        "1 of 3 images of LOC_val_solution.csv are not here, extract them: ILSVRC2012_val_00000003"
    )
    (tmp_path / "LOC_train_solution.csv").unlink()
    deeper = data / "train"
    assert {record.split for record in trees.read("imagenet", deeper)[0].values()} == {"train"}


def test_val_has_its_labels_and_boxes_from_xml(tmp_path: Path) -> None:
    make_val(tmp_path)
    xml = "<annotation><object><name>{}</name><bndbox>{}</bndbox></object></annotation>"
    box = "<xmin>0</xmin><ymin>1</ymin><xmax>7</xmax><ymax>5</ymax>"
    for name, label in WANTED.items():
        write(tmp_path / "Annotations" / "CLS-LOC" / "val" / f"{name}.xml", xml.format(label, box))
    assert labels(tmp_path) == WANTED
    records, _ = trees.read("imagenet", tmp_path)
    assert [(b.xmin, b.ymin, b.xmax, b.ymax) for r in records.values() for b in r.objects] == [(0, 1, 7, 5)] * 3


def test_val_has_its_labels_from_the_development_kit(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    make_val(tmp_path)
    kit = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    write(kit / "ILSVRC2012_validation_ground_truth.txt", "490\n2\n490\n")
    records, problems = trees.read("imagenet", tmp_path)
    assert {record.label for record in records.values()} == {None}
    assert "meta.mat, which names them, is not there" in problems[0].error
    assert "3 of 3 images have no label, put LOC_val_solution.csv" in problems[1].error
    synsets = np.array([(2, TENCH), (490, FISH)], dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")])
    scipy_io.savemat(kit / "meta.mat", {"synsets": synsets})
    assert labels(tmp_path) == WANTED
    write(kit / "ILSVRC2012_validation_ground_truth.txt", "490\n2\n7\n")
    assert "does not fit it" in trees.read("imagenet", tmp_path)[1][0].error


def test_names_that_do_not_tell_the_class_stay_apart(tmp_path: Path) -> None:
    for label in (TENCH, FISH):
        write_photo(tmp_path / label / "art_0.jpg")
    (tmp_path / "n09999999").mkdir()
    records, problems = trees.read("imagenet", tmp_path)
    assert list(records) == [f"{TENCH}/art_0", f"{FISH}/art_0"]
    assert {record.split for record in records.values()} == {None}
    assert [(p.path, p.step) for p in problems] == [("n09999999", "image")]
    shutil.rmtree(tmp_path / TENCH)
    shutil.rmtree(tmp_path / FISH)
    with pytest.raises(SourceError, match="no image found"):
        trees.read("imagenet", tmp_path)


def test_behind_a_url_it_is_the_same(tmp_path: Path, bucket: str) -> None:
    make_train(tmp_path / "in")
    make_val(tmp_path / "in")
    write(
        tmp_path / "in" / "LOC_val_solution.csv", f"ImageId,PredictionString\nILSVRC2012_val_00000001,{TENCH} 1 2 3 4\n"
    )
    trees.same_behind_url("imagenet", tmp_path / "in", f"{bucket}/in")
