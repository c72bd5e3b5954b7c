"""NYU Depth v2: the labelled file, and pairs in folders, with the units of their depths."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
import pytest
from shelves import encoded, make_mat, picture
from tinystore import Planted

from featstore import sources
from featstore.build import build_version
from featstore.dataset import FeatureDataset
from featstore.errors import SourceError
from featstore.index import index_dataset
from featstore.plan import Request
from featstore.query import restricted
from featstore.records import ImageRecord, Meaning, Problem

NYU = sources.get("nyu")
SHARED = Path(__file__).parents[3] / "shared" / "data" / "nyu-mini"
EIGHT = np.full((6, 8), 100, np.uint8)
SIXTEEN = np.full((6, 8), 2500, np.uint16)


def read(folder: Path) -> tuple[dict[str, ImageRecord], list[Problem]]:
    found = list(NYU.read(folder))
    return {r.image_id: r for r in found if isinstance(r, ImageRecord)}, [p for p in found if isinstance(p, Problem)]


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def kaggle(folder: Path, scenes: Iterable[str] = ("basement_0001a_out", "home_office_0004_out")) -> Path:
    files: dict[str, bytes] = {}
    rows = []
    for scene in scenes:
        for number in (2, 10):
            at = f"data/nyu2_train/{scene}/{number}"
            files |= {f"{at}.jpg": encoded(picture(number), "JPEG"), f"{at}.png": encoded(EIGHT)}
            rows.append(f"{at}.jpg,{at}.png\n")
    for number in (0, 1):
        at = f"data/nyu2_test/{number:05d}"
        files |= {f"{at}_colors.png": encoded(picture(number)), f"{at}_depth.png": encoded(SIXTEEN)}
    files["data/nyu2_train.csv"] = "".join(rows).encode()
    files["data/nyu2_test.csv"] = b"".join(
        b"data/nyu2_test/%05d_colors.png,data/nyu2_test/%05d_depth.png\n" % (n, n) for n in (0, 1)
    )
    return put(folder, files)


def sync(folder: Path) -> Path:
    files: dict[str, bytes] = {}
    for at in ("sync/kitchen_0028a", "sync/living_room_0001", "official_splits/test/bathroom"):
        for number in ("00000", "00045"):
            files |= {
                f"{at}/rgb_{number}.jpg": encoded(picture(1), "JPEG"),
                f"{at}/sync_depth_{number}.png": encoded(SIXTEEN),
            }
    lines = [f"/kitchen_0028a/rgb_{n}.jpg /kitchen_0028a/sync_depth_{n}.png 518.8579\n" for n in ("00000", "00045")]
    files["nyudepthv2_train_files_with_gt.txt"] = "".join(lines).encode()
    files["nyudepthv2_test_files_with_gt.txt"] = b"bathroom/rgb_00045.jpg bathroom/sync_depth_00045.png 518.8579\n"
    return put(folder, files)


def test_the_labelled_file(tmp_path: Path) -> None:
    scipy = pytest.importorskip("scipy.io")
    arrays = make_mat(tmp_path / "nyu" / "nyu_depth_v2_labeled.mat")
    scipy.savemat(tmp_path / "nyu" / "splits.mat", {"trainNdxs": np.array([[3], [1]]), "testNdxs": np.array([[2]])})
    assert sources.detect(tmp_path / "nyu") is NYU
    found, problems = read(tmp_path / "nyu")
    assert problems == []
    assert {name: (r.split, r.label, r.part) for name, r in found.items()} == {
        "0001": ("train", "kitchen", "kitchen_0000"),
        "0002": ("test", "kitchen", "kitchen_0001"),
        "0003": ("train", "kitchen", "kitchen_0002"),
    }
    assert found["0002"].path == "nyu_depth_v2_labeled.mat::images/1"
    assert NYU.meaning(tmp_path / "nyu") == Meaning(("unlabelled", "wall", "floor"), (0,), depth_metres=1.0)
    for source in (tmp_path / "nyu", tmp_path / "nyu" / "nyu_depth_v2_labeled.mat", tmp_path):
        assert {name.rpartition("/")[2] for name in read(source)[0]} == set(found)
    root = tmp_path / "store"
    report = index_dataset(root, "nyu", tmp_path / "nyu")
    assert (report.images, report.problems) == (3, ())
    with restricted(root, "nyu") as connection:
        told = connection.execute(
            "SELECT DISTINCT width, height, mode, bytes, instance_path IS NULL FROM images"
        ).fetchall()
    assert told == [(8, 6, "RGB", 6 * 8 * 3 + 11, False)]
    assert index_dataset(root, "nyu", None).hashed == 0
    build_version(root, Request("nyu", "test_vit"), Planted())
    data = FeatureDataset(root, "nyu", backbone="test_vit", variants=("raw",), mask=True, depth=True)
    item = data["0002"]
    rows, columns = (((np.arange(64) + 0.5) * size / 64).astype(int) for size in (6, 8))
    assert np.array_equal(item["depth"], arrays["depths"][..., 1][rows[:, None], columns])
    assert np.array_equal(item["mask"], arrays["labels"][..., 1][rows[:, None], columns])


def test_a_labelled_file_that_is_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "nyu_depth_v2_labeled.mat"
    make_mat(path)
    (tmp_path / "splits.mat").write_bytes(b"cut off")
    found, problems = read(path)
    assert len(found) == 3
    assert [(p.path, p.step) for p in problems] == [("splits.mat", "split")]
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(SourceError, match=r"nyu_depth_v2_labeled\.mat is damaged or cut off.*fetch it again"):
        read(path)
    path.write_bytes(b"MATLAB 5.0 MAT-file, Platform".ljust(200))
    with pytest.raises(SourceError, match=r"version 5: save it with -v7\.3"):
        read(tmp_path)
    with h5py.File(path, "w") as file:
        file["pictures"] = np.zeros(3)
    with pytest.raises(SourceError, match=r"no array `images` of \(N, 3, W, H\): it holds pictures"):
        read(path)


@pytest.mark.parametrize("given", ["", "data"])
def test_nyu2_train_and_test(tmp_path: Path, given: str) -> None:
    folder = kaggle(tmp_path / "nyu_data")
    source = folder / given
    assert sources.detect(source) is NYU
    found, problems = read(source)
    below = "" if given else "data/"
    assert problems == []
    assert list(found) == [
        f"{below}nyu2_train/basement_0001a_out/2",
        f"{below}nyu2_train/basement_0001a_out/10",
        f"{below}nyu2_train/home_office_0004_out/2",
        f"{below}nyu2_train/home_office_0004_out/10",
        f"{below}nyu2_test/00000",
        f"{below}nyu2_test/00001",
    ]
    one = found[f"{below}nyu2_train/home_office_0004_out/10"]
    assert (one.split, one.label, one.part, one.splits) == (
        "train",
        "home_office",
        "home_office_0004_out",
        ("nyu/nyu2_train",),
    )
    assert one.depth_path == f"{below}nyu2_train/home_office_0004_out/10.png"
    other = found[f"{below}nyu2_test/00001"]
    assert (other.split, other.label, other.depth_path) == ("test", None, f"{below}nyu2_test/00001_depth.png")
    assert index_dataset(tmp_path / "store", "nyu", source).problems == ()
    # 8 bits to 10 m in one, millimetres in the other: together they have no unit.
    assert NYU.meaning(source).depth_metres is None
    assert NYU.meaning(folder / "data" / "nyu2_train").depth_metres == pytest.approx(10 / 255)
    assert NYU.meaning(folder / "data" / "nyu2_test").depth_metres == 0.001
    assert len(read(folder / "data" / "nyu2_test")[0]) == 2


def test_half_an_archive_is_told(tmp_path: Path) -> None:
    folder = kaggle(tmp_path) / "data"
    shutil.rmtree(folder / "nyu2_train" / "home_office_0004_out")
    (folder / "nyu2_train" / "basement_0001a_out" / "2.png").unlink()
    (folder / "nyu2_test" / "00001_colors.png").unlink()
    found, problems = read(folder)
    assert len(found) == 3
    assert [(p.path, p.step) for p in problems] == [
        ("nyu2_train.csv", "split"),
        ("nyu2_train", "annotation"),
        ("nyu2_test.csv", "split"),
        ("nyu2_test", "image"),
    ]
    assert problems[0].error.startswith(
        "2 of 4 images that it names are not in nyu2_train: home_office_0004_out/10.jpg"
    )
    assert problems[1].error == "1 of 2 images have no depth map here: extract it again"
    assert "1 of 2 depth maps have no image here" in problems[3].error


def test_sync_with_split_files(tmp_path: Path) -> None:
    folder = sync(tmp_path / "nyu")
    assert sources.detect(folder) is NYU
    found, problems = read(folder)
    assert problems == []
    assert len(found) == 6
    one, other = found["sync/kitchen_0028a/rgb_00045"], found["official_splits/test/bathroom/rgb_00045"]
    assert (one.split, one.label, one.part) == ("train", "kitchen", "kitchen_0028a")
    assert one.depth_path == "sync/kitchen_0028a/sync_depth_00045.png"
    assert one.splits == ("nyu/nyudepthv2_train_files_with_gt",)
    assert (other.split, other.label) == ("test", "bathroom")
    assert other.splits == ("nyu/nyudepthv2_test_files_with_gt",)
    assert found["sync/living_room_0001/rgb_00000"].splits == ()
    assert NYU.meaning(folder).depth_metres == 0.001
    assert len(read(folder / "sync")[0]) == 4


def test_another_level_is_told(tmp_path: Path) -> None:
    folder = kaggle(tmp_path / "nyu_data")
    with pytest.raises(
        SourceError, match=r"is not of layout nyu, which expects .*; the folder to give is .*nyu2_train"
    ):
        read(folder / "data" / "nyu2_train" / "basement_0001a_out")
    with pytest.raises(
        SourceError, match=r"is not of layout nyu, which expects nyu_depth_v2_labeled\.mat, or a folder"
    ):
        read(put(tmp_path / "photos", {"a.jpg": b""}))
    with pytest.raises(SourceError, match=r"is no \.mat file"):
        read(put(tmp_path / "photos", {"a.jpg": b""}) / "a.jpg")
    with pytest.raises(SourceError, match="there is no folder"):
        read(tmp_path / "nowhere")


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/nyu-mini")
def test_real_pairs_in_metres(tmp_path: Path) -> None:
    from PIL import Image

    root = tmp_path / "store"
    report = index_dataset(root, "nyu", SHARED)
    assert (report.layout, report.images, report.problems) == ("nyu", 10, ())
    build_version(root, Request("nyu", "test_vit"), Planted())
    data = FeatureDataset(root, "nyu", backbone="test_vit", variants=("raw",), depth=True)
    unit = data.depth_metres
    assert unit == 0.001
    for number in range(10):
        item = data[f"image_{number}"]
        with Image.open(SHARED / f"depth_{number}.png") as image:
            truth = np.array(image, np.float32) * unit
        assert np.isin(item["depth"].numpy() * np.float32(unit), truth).all()
        assert 0.5 < float(np.median(item["depth"]) * unit) < 10  # rooms
