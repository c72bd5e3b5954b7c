"""Layouts webdataset and parquet: what is in tars and Parquet files is what was put there, by whichever tool."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeDecomposer
from shelves import as_files, encoded, make_parquet, make_tar, picture
from tinystore import Planted

from featstore import sources
from featstore.build import build_version
from featstore.dataset import FeatureDataset
from featstore.errors import SourceError
from featstore.images import decode
from featstore.index import index_dataset
from featstore.masks import read_mask
from featstore.members import read_bytes
from featstore.plan import Request
from featstore.query import restricted
from featstore.records import ImageRecord, Problem
from featstore.repair import repair_store

pytest.importorskip("pyarrow")


def read(source: Path, layout: str | None = None) -> tuple[dict[str, ImageRecord], list[Problem]]:
    reader = sources.get(layout) if layout else sources.detect(source)
    found = list(reader.read(source))
    return {r.image_id: r for r in found if isinstance(r, ImageRecord)}, [p for p in found if isinstance(p, Problem)]


def stored(root: Path, dataset: str) -> list[tuple[Any, ...]]:
    with restricted(root, dataset) as connection:
        return connection.execute(
            "SELECT sha256, norm_max, heldout_r2, checksum_raw, checksum_clean, checksum_residual FROM stored ORDER BY 1"
        ).fetchall()


def samples(split: str, count: int) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for number in range(count):
        image = picture(number)
        key = f"{split}/im{number}"
        found |= {
            f"{key}.seg.png": encoded(image[..., 0]),
            f"{key}.jpg": encoded(image, "JPEG"),
            f"{key}.cls": b"%d" % number,
        }
    return found


def test_samples_of_a_tar_are_grouped_by_key(tmp_path: Path) -> None:
    told = {
        "label": "cat",
        "objects": [{"class": "cat", "xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}, {"bbox": [1, 2, 3, 4]}],
    }
    inside = {
        "./a/x.1.depth.tiff": b"d",
        "./a/x.1.seg.png": b"m",  # keys end at the first dot: these are of a/x as well
        "a/y.JPG": b"y",
        "a/y.json": json.dumps(told).encode(),
        "a/y.depth.npy": b"d",
        "a/y.instance.png": b"i",
        "b/y.rgb.png": b"other",
        "b/y.class": b" dog\n",
        ".hidden.jpg": b"h",
        "a/._y.jpg": b"resource fork",
        "plain": b"no ending",
        "c/z.txt": b"no image",
        "c/w.jpg": b"",
        "c/w.json": b"{",
    }
    make_tar(tmp_path / "shards" / "train-0000.tar", inside)
    found, problems = read(tmp_path / "shards")
    assert set(found) == {"train-0000/a/y", "train-0000/b/y", "train-0000/c/w"}
    cat, dog = found["train-0000/a/y"], found["train-0000/b/y"]
    assert (cat.path, cat.label, cat.split) == ("train-0000.tar::a/y.JPG", "cat", "train")
    assert (cat.depth_path, cat.instance_path) == ("train-0000.tar::a/y.depth.npy", "train-0000.tar::a/y.instance.png")
    assert [(box.name, box.xmin, box.ymax) for box in cat.objects] == [("cat", 1.0, 4.0)]
    assert (dog.path, dog.label, dog.mask_path) == ("train-0000.tar::b/y.rgb.png", "dog", None)
    assert [(p.step, p.path) for p in problems] == [
        ("image", "train-0000.tar"),
        ("annotation", "train-0000.tar::c/w.json"),
    ]
    assert "2 of 5 samples have no image: a/x, c/z" in problems[0].error


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train-0000.tar", "train"),
        ("imagenet1k-validation-00.tar", "val"),
        ("test/0.tar", "test"),
        ("retrained-1.tar", None),
        ("deep/val/x.tar", "val"),
    ],
)
def test_a_tars_name_tells_the_split(tmp_path: Path, path: str, split: str | None) -> None:
    make_tar(tmp_path / "s" / path, {"a.jpg": b"x"})
    (found,) = read(tmp_path / "s", "webdataset")[0].values()
    assert (found.split, found.path) == (split, f"{path}::a.jpg")


def test_a_tar_of_one_class_of_imagenet(tmp_path: Path) -> None:
    make_tar(tmp_path / "train" / "n01440764.tar", {"n01440764_10026.JPEG": b"x"})
    (found,) = read(tmp_path)[0].values()
    assert (found.label, found.split, found.path) == ("n01440764", "train", "train/n01440764.tar::n01440764_10026.JPEG")


def test_tars_of_the_library_are_read_as_it_reads_them(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(f"{tmp_path}/train-%03d.tar", maxcount=4, verbose=0) as writer:
        for number in range(10):
            image = picture(number)
            writer.write({"__key__": f"n01/{number:03d}", "png": image, "cls": number % 3, "seg.png": image[..., 0]})
    shards = [str(path) for path in sorted(tmp_path.glob("*.tar"))]
    theirs = {one["__key__"]: one for one in webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8")}
    root = tmp_path / "store"
    report = index_dataset(root, "wds", tmp_path)
    assert (report.layout, report.images, report.problems) == ("webdataset", 10, ())
    build_version(root, Request("wds", "fake"), FakeDecomposer())
    with restricted(root, "wds") as connection:
        told = connection.execute("SELECT image_id, label, split, path FROM images ORDER BY image_id").fetchall()
    for image_id, label, split, path in told:
        one = theirs[image_id.partition("/")[2]]
        assert (label, split) == (str(one["cls"]), "train")
        assert np.array_equal(decode(read_bytes(tmp_path / path)), one["png"])
        mask = read_mask(read_bytes(tmp_path / path.replace(".png", ".seg.png")))
        assert np.array_equal(mask, one["seg.png"][..., 0])


@pytest.mark.parametrize("alone", [False, True])
def test_features_of_images_in_a_tar_are_those_of_the_same_files(tmp_path: Path, alone: bool) -> None:
    inside = samples("val", 5)
    for name, data in inside.items():
        (tmp_path / "plain" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "plain" / name).write_bytes(data)
    tar = make_tar(tmp_path / "shards" / "val-0.tar", inside)
    for name in inside:
        if not name.endswith(".jpg"):
            (tmp_path / "plain" / name).unlink()
    for root, source in (("a", tmp_path / "plain"), ("b", tar if alone else tar.parent)):
        index_dataset(tmp_path / root, "pets", source)
        report = build_version(tmp_path / root, Request("pets", "fake", shard_size=2), FakeDecomposer())
        assert (report.computed, report.failed) == (5, 0)
    assert stored(tmp_path / "a", "pets") == stored(tmp_path / "b", "pets")
    # The second build has nothing to do, and neither has indexing again, wherever that begins.
    assert build_version(tmp_path / "b", Request("pets", "fake"), FakeDecomposer()).computed == 0
    assert index_dataset(tmp_path / "b", "pets", None).hashed == 0


def test_a_store_of_one_tar_is_repaired_from_it(tmp_path: Path) -> None:
    root = tmp_path / "store"
    index_dataset(root, "pets", make_tar(tmp_path / "val-0.tar", samples("val", 5)))
    build_version(root, Request("pets", "fake", shard_size=2), FakeDecomposer())
    before = {path: path.read_bytes() for path in sorted(root.rglob("*.h5"))}
    (lost, *_) = before
    lost.unlink()
    report = repair_store(root, None, lambda version: FakeDecomposer())
    assert (report.left, report.recomputed) == ([], 2)
    assert {path: path.read_bytes() for path in sorted(root.rglob("*.h5"))} == before


def test_columns_of_a_parquet_file_and_the_names_of_its_classes(tmp_path: Path) -> None:
    images = [encoded(picture(n)) for n in range(12)]
    masks = [encoded(picture(n)[..., 0]) for n in range(12)]
    columns = {
        "Image": as_files(images),
        "label": [n % 3 - 1 for n in range(12)],
        "annotation": [None if n == 4 else one for n, one in enumerate(as_files(masks))],
        "depth_map": as_files(masks),
        "caption": ["x"] * 12,
    }
    make_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", columns, names=["cat", "dog"])
    make_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", columns)
    found, problems = read(tmp_path)
    assert problems == []
    assert len(found) == 24
    one = found["data/train-00000-of-00001/04"]
    assert (one.path, one.split) == ("data/train-00000-of-00001.parquet::4/Image", "train")
    assert (one.label, one.mask_path) == ("cat", None)
    assert found["data/train-00000-of-00001/05"].mask_path == "data/train-00000-of-00001.parquet::5/annotation"
    assert found["data/train-00000-of-00001/05"].depth_path == "data/train-00000-of-00001.parquet::5/depth_map"
    assert [found[f"data/train-00000-of-00001/{n:02d}"].label for n in range(3)] == [None, "cat", "dog"]
    other = found["data/validation-00000-of-00001/02"]
    assert (other.split, other.label) == ("val", "1")


def test_a_repository_of_parquet_files_is_detected(tmp_path: Path) -> None:
    make_parquet(tmp_path / "default" / "test" / "0000.parquet", {"image": as_files([encoded(picture(0))])})
    (tmp_path / "README.md").write_text("a card")
    assert sources.detect(tmp_path).layout == "parquet"
    (found,) = read(tmp_path)[0].values()
    assert (found.split, found.path) == ("test", "default/test/0000.parquet::0/image")


def test_what_the_library_datasets_writes_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    kinds = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"]), "mask": datasets.Image()}
    )
    images = [Image.fromarray(picture(n)) for n in range(5)]
    columns = {"image": images, "label": [0, 1, 1, 0, -1], "mask": [image.convert("L") for image in images]}
    made = datasets.Dataset.from_dict(columns, features=kinds)
    made.to_parquet(tmp_path / "train.parquet")
    report = index_dataset(tmp_path / "store", "hf", tmp_path / "train.parquet")
    assert (report.layout, report.images, report.problems) == ("parquet", 5, ())
    with restricted(tmp_path / "store", "hf") as connection:
        labels = connection.execute("SELECT label, split, mask_path IS NULL FROM images ORDER BY image_id").fetchall()
    assert labels == [(name, "train", False) for name in ("cat", "dog", "dog", "cat", None)]


@pytest.mark.parametrize("plain", [False, True])
def test_features_and_masks_of_images_in_parquet_are_those_of_the_same_files(tmp_path: Path, plain: bool) -> None:
    images = [encoded(picture(n), "JPEG") for n in range(9)]
    masks = [encoded(picture(n)[..., 0]) for n in range(9)]
    for number, data in enumerate(images):
        path = tmp_path / "plain" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    table = make_parquet(
        tmp_path / "train.parquet",
        {"image": images if plain else as_files(images), "mask": as_files(masks)},
        group=4,
    )
    fake = FakeDecomposer()
    for root, source in (("a", tmp_path / "plain"), ("b", table)):
        index_dataset(tmp_path / root, "pets", source)
        build_version(tmp_path / root, Request("pets", "fake", shard_size=4), fake)
    assert stored(tmp_path / "a", "pets") == stored(tmp_path / "b", "pets")
    again = index_dataset(tmp_path / "b", "pets", None)
    assert (again.hashed, again.changed, again.images) == (0, 0, 9)
    make_parquet(table, {"image": as_files([*images[:8], images[0]]), "mask": as_files(masks)}, group=4)
    changed = index_dataset(tmp_path / "b", "pets", None)
    assert (changed.hashed, changed.changed) == (9, 1)


def test_damage_is_a_problem_and_the_rest_is_indexed(tmp_path: Path) -> None:
    make_tar(tmp_path / "t" / "a.tar", samples("x", 4))
    whole = make_tar(tmp_path / "t" / "b.tar", samples("x", 4)).read_bytes()
    (tmp_path / "t" / "b.tar").write_bytes(whole[: len(whole) // 3])
    (tmp_path / "t" / "c.tar").write_bytes(b"<html>not found</html>")
    report = index_dataset(tmp_path / "store", "tars", tmp_path / "t")
    told = {problem.path: problem.error for problem in report.problems}
    assert 4 < report.images < 8
    assert re.match(r"b.tar (ends in the middle of x/im|is cut off)", told["b.tar"])
    assert "c.tar is not a tar file" in told["c.tar"]

    make_parquet(tmp_path / "p" / "a.parquet", {"image": as_files([encoded(picture(0))])})
    whole = make_parquet(tmp_path / "p" / "b.parquet", {"image": as_files([encoded(picture(1))])}).read_bytes()
    (tmp_path / "p" / "b.parquet").write_bytes(whole[:-10])
    make_parquet(tmp_path / "p" / "c.parquet", {"words": ["a"]})
    report = index_dataset(tmp_path / "store", "tables", tmp_path / "p")
    told = {problem.path: problem.error for problem in report.problems}
    assert (report.images, set(told)) == (1, {"b.parquet", "c.parquet"})
    assert told["b.parquet"] == "b.parquet is cut off, or no Parquet file: fetch it again"
    assert told["c.parquet"] == "no column holds images: words VARCHAR"


def test_what_holds_no_image_is_told(tmp_path: Path) -> None:
    make_tar(tmp_path / "features" / "clean-0.tar", {"a.clean.npy": b"x", "a.json": b"{}"})
    with pytest.raises(SourceError, match=r"no image found in .*features; layout webdataset expects tar files"):
        read(tmp_path / "features")
    make_tar(tmp_path / "outer" / "ILSVRC2012_img_train.tar", {"n01440764.tar": b"x", "n01443537.tar": b"x"})
    with pytest.raises(SourceError, match=r"holds tar files \(n01440764.tar, n01443537.tar\): extract it once"):
        read(tmp_path / "outer")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "a.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(SourceError, match=r"a\.tar\.gz is compressed.*decompress it"):
        read(tmp_path / "packed")
    with pytest.raises(SourceError, match="there is no folder"):
        read(tmp_path / "nowhere", "webdataset")
    # A folder of photographs in which a tar was left is a folder of photographs.
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    (tmp_path / "photos" / "cats" / "a.png").write_bytes(encoded(picture(0)))
    make_tar(tmp_path / "photos" / "backup" / "old.tar", {"a.png": b""})
    assert sources.detect(tmp_path / "photos").layout == "folder"


def test_masks_and_depths_in_a_tar_are_read_beside_features(tmp_path: Path) -> None:
    inside: dict[str, bytes] = {}
    for number in range(3):
        image = picture(number, (64, 64))
        depth = np.full((64, 64), number + 0.5, np.float32)
        np.save(tmp_path / "d.npy", depth)
        inside |= {f"{number}.png": encoded(image), f"{number}.mask.png": encoded(image[..., 0] % 5)}
        inside[f"{number}.depth.npy"] = (tmp_path / "d.npy").read_bytes()
    make_tar(tmp_path / "t" / "train-0.tar", inside)
    root = tmp_path / "store"
    index_dataset(root, "tars", tmp_path / "t")
    build_version(root, Request("tars", "test_vit"), Planted())
    data = FeatureDataset(root, "tars", backbone="test_vit", variants=("raw",), image=True, mask=True, depth=True)
    assert len(data) == 3
    for number in range(3):
        item = data[number]
        image = picture(number, (64, 64))
        assert np.array_equal(item["image"].permute(1, 2, 0), image)
        assert np.array_equal(item["mask"], image[..., 0] % 5)
        assert float(item["depth"].min()) == float(item["depth"].max()) == number + 0.5
