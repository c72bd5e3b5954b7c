"""``featstore eval`` as a user meets it, on features whose worth is planted."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mean_patches import decomposer
from PIL import Image
from tinystore import call, done, rows

from featstore.build import build_version
from featstore.errors import StoreError
from featstore.plan import Request
from featstore.rebuild import rebuild_manifest
from featstore.removal import remove_version

COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
SIZE, LINE, WIDE = (96, 128), 3, (96, 192)
QUICK = ("--steps", 40, "--rate", 0.1, "--device", "cpu", "--json")


def write_voc(tree: Path) -> None:
    """Twelve images of one colour, which is their class; four have a line of another label that no patch shows, four
    are wide, with such a line where their middle square ends, and an edge of 255.
    """
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation", "Annotations"):
        (tree / part).mkdir(parents=True)
    names = [f"2007_{number:06d}" for number in range(12)]
    for number, name in enumerate(names):
        own, size = number % 3, WIDE if number >= 8 else SIZE
        Image.new("RGB", size[::-1], tuple(COLOURS[own].tolist())).save(tree / "JPEGImages" / f"{name}.jpg", quality=98)
        mask = np.full(size, own, np.uint8)
        if number >= 8:
            mask[LINE], mask[:, 2] = (own + 1) % 3, (own + 1) % 3
            mask[-10:] = 255
        Image.fromarray(mask).save(tree / "SegmentationClass" / f"{name}.png")
    for split, some in (("train", names[:8]), ("val", names[8:]), ("trainval", names)):
        (tree / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(some))


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voc")
    write_voc(folder / "VOCdevkit" / "VOC2012")
    done("index", "voc", "--source", folder / "VOCdevkit", "--root", folder / "store")
    for resize in ("squash", "shortest", "keep"):
        build_version(folder / "store", Request("voc", "mean"), decomposer((32, 32), resize))
    return folder / "store"


@pytest.fixture
def root(voc: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(voc, tmp_path / "store"))


def figures(*words: object) -> dict[tuple[str, str], dict[str, Any]]:
    found = json.loads(done("eval", *words).out)
    return {(one["version"], one["metric"]): one for one in found}


def test_masks_are_judged_at_their_own_size_where_features_show_them(root: Path) -> None:
    found = figures("voc/mean/v1", "voc/mean/v2", "voc/mean/v3", *QUICK, "--seeds", 2, "--root", root)
    height, width = WIDE
    lines = width + (height - 10) - 1
    whole = 1 - lines / ((height - 10) * width)  # the line of one row and that of one column, none of the edge
    square = 1 - height / ((height - 10) * height)  # of the middle square the line of one row
    for version, expected in (("v1", whole), ("v2", square), ("v3", whole)):
        own = found[f"voc/mean/{version}", "aAcc"]
        assert own["value"] == pytest.approx(expected), version
        assert (own["low"], own["high"]) == pytest.approx((expected, expected))
        assert (own["interval"], own["seeds"], own["train_images"], own["val_images"]) == ("seeds (t)", 2, 8, 4)
    assert found["voc/mean/v2", "mIoU"]["difference"] == pytest.approx(
        found["voc/mean/v2", "mIoU"]["value"] - found["voc/mean/v1", "mIoU"]["value"]
    )
    assert "difference" not in found["voc/mean/v1", "mIoU"]
    few = ("v1", "--steps", 2, "--seeds", 2, "--device", "cpu", "--json", "--root", root)
    assert figures(*few) == figures(*few)  # a seed decides all that is drawn


def test_one_hot_features_label_every_patch(root: Path) -> None:
    found = figures("v1", "--task", "knn", "--neighbours", 5, "--json", "--root", root)
    assert [one["value"] for one in found.values()] == [1, 1, 1]
    assert {(one["low"], one["high"], one["interval"]) for one in found.values()} == {(1, 1, "images (bootstrap)")}


def test_folds_judge_every_image_once_by_what_the_others_teach(root: Path) -> None:
    few = ("v1", "--task", "knn", "--neighbours", 150, "--json", "--root", root)
    found = figures(*few, "--folds", 3)
    whole = found["voc/mean/v1", "aAcc"]
    assert (whole["train_images"], whole["val_images"]) == (8, 12)
    shas = rows(root, "SELECT sha256, list(image_id) FROM images GROUP BY ALL ORDER BY sha256")
    assert len(shas) < 12  # the same bytes under several names, which go to one fold
    pixels = right = 0.0
    for fold in range(3):
        own = ", ".join(f"'{name}'" for _, names in shas[fold::3] for name in names)
        told = figures(*few, "--train-where", f"image_id NOT IN ({own})", "--val-where", f"image_id IN ({own})")
        one = told["voc/mean/v1", "aAcc"]
        pixels += one["val_images"]
        right += one["value"] * one["val_images"]  # every image has as many patches
    assert whole["value"] == pytest.approx(right / pixels)
    assert 0.1 < whole["value"] < 0.95
    kept = rows(root, "SELECT settings ->> 'folds', settings ->> 'train' FROM evaluations WHERE val_images = 12")
    assert kept == [("3", "2 of 3 folds")] * 3


def test_heads_are_judged_over_images_as_over_seeds(root: Path) -> None:
    few = ("v1", "v3", "--steps", 3, "--seeds", 2, "--device", "cpu", "--json", "--root", root)
    seeds, images = figures(*few), figures(*few, "--over", "images")
    alike = ("value", "difference", "baseline", "seeds")
    for key, one in images.items():
        other = seeds[key]
        assert [one.get(name) for name in alike] == pytest.approx([other.get(name) for name in alike])
        assert (one["interval"], other["interval"]) == ("images (bootstrap)", "seeds (t)")
        assert one["low"] <= one["high"]
    assert images["voc/mean/v3", "mIoU"]["baseline"] == "voc/mean/v1 raw"
    kept = "SELECT difference, difference_low, difference_high FROM evaluations WHERE baseline IS NOT NULL"
    held = {tuple(one[name] for name in ("difference", "difference_low", "difference_high"))
            for told in (seeds, images) for one in told.values() if "baseline" in one}  # fmt: skip
    assert set(rows(root, kept)) == held
    assert rows(root, "SELECT count(*) FROM evaluations WHERE settings ->> 'over' = 'images'") == [(6,)]


def test_positions_of_flat_images_tell_nothing(root: Path) -> None:
    found = figures("v1", "--task", "position", "--json", "--root", root)
    assert abs(found["voc/mean/v1", "variance explained"]["value"]) < 0.05
    assert found["voc/mean/v1", "MIC"]["train_images"] == 0
    said = call("eval", "v3", "--task", "position", "--root", root)
    assert (said.code, "--val-where 'grid_height = " in said.err) == (1, True)


def test_figures_are_kept_replaced_rebuilt_and_go_with_their_version(root: Path) -> None:
    for _ in range(2):
        done("eval", "v1", "v2", "--task", "knn", "--root", root)
    table = "SELECT count(*) FROM evaluations"
    assert rows(root, table) == [(6,)]
    done("eval", "v1", "--steps", 2, "--seeds", 2, "--root", root)
    done("eval", "v1", "--task", "knn", "--neighbours", 3, "--root", root)
    assert rows(root, table) == [(12,)]
    said = done("query", "voc", "SELECT version, task, metric, value FROM evaluations ORDER BY ALL", "--root", root)
    assert "v2" in said.out
    kept = "SELECT * FROM evaluations ORDER BY ALL"
    before = rows(root, kept)
    (root / "manifest.duckdb").unlink()
    assert rebuild_manifest(root).rows["evaluations"] == 12
    assert rows(root, kept) == before
    remove_version(root, "voc/mean/v1")
    assert rows(root, "SELECT DISTINCT v.number FROM evaluations JOIN versions v USING (digest)") == [(2,)]
    assert rows(root, table) == [(3,)]
    done("gc", "--root", root)
    done("verify", "--root", root)
    done("rm", "voc", "--dataset", "--root", root)
    assert rows(root, table) == [(0,)]


def test_figures_that_cannot_be_kept_are_told_all_the_same(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr("featstore.evaluations.manifest.insert", full)
    said = call("eval", "v1", "--task", "knn", "--root", root)
    assert (said.code, "voc/mean/v1" in said.out) == (3, True)
    assert "error: figures of voc/mean/v1 are not kept: the disk is full" in said.err


def test_without_splits_halves_are_taken_by_hash(root: Path) -> None:
    found = figures("v1", "--task", "knn", "--train-where", "image_id < '2007_000006'", "--val-where",
                    "image_id >= '2007_000006'", "--json", "--root", root)  # fmt: skip
    assert {(one["train_images"], one["val_images"]) for one in found.values()} == {(6, 6)}
    import duckdb

    with duckdb.connect(str(root / "manifest.duckdb")) as connection:
        connection.execute("UPDATE images SET split = NULL")
        expected = connection.execute(
            "SELECT count(*) FILTER (sha256 < '8'), count(*) FILTER (sha256 >= '8') FROM images"
        )
        counts = expected.fetchall()[0]
    found = figures("v1", "--task", "knn", "--json", "--root", root)
    assert {(one["train_images"], one["val_images"]) for one in found.values()} == {counts}


def test_depth_is_metres_and_planted_depth_is_found(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    folder = tmp_path / "pairs"
    folder.mkdir()
    for number in range(12):
        level = generator.integers(40, 250, (4, 4), dtype=np.uint8)
        grey = np.repeat(np.repeat(level, 8, 0), 8, 1)
        Image.fromarray(np.stack([grey] * 3, axis=-1)).save(folder / f"image_{number}.png")
        Image.fromarray(grey.astype(np.uint16) * 30).save(folder / f"depth_{number}.png")
    root = tmp_path / "store"
    done("index", "rooms", "--source", folder, "--layout", "nyu", "--root", root)
    build_version(root, Request("rooms", "mean"), decomposer((32, 32), "squash"))
    parts = ("--train-where", "image_id < 'image_4'", "--val-where", "image_id >= 'image_4'")
    found = figures(
        "v1", "--task", "depth", *parts, "--steps", 120, "--rate", 0.1, "--seeds", 1, "--json", "--root", root
    )
    assert found["rooms/mean/v1", "AbsRel"]["value"] < 0.25  # bilinear between patches, depth has steps
    assert found["rooms/mean/v1", "RMSE"]["value"] < 1.5
    assert found["rooms/mean/v1", "delta3"]["value"] > 0.9


def test_the_tutorials_head_by_hand_runs(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text(encoding="utf-8")
    (example,) = [one for one in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "cross_entropy" in one]
    assert example.count("\n") <= 40
    monkeypatch.setenv("FEATSTORE_ROOT", str(root))
    example = example.replace("collages/dinov2_s/v1", "voc/mean/v1").replace('("raw", "clean")', '("raw",)')
    example = example.replace("CLASSES, EPOCHS = 6, 20", "CLASSES, EPOCHS = 21, 60").replace("lr=1e-3", "lr=0.1")
    exec(compile(example, "tutorial.md", "exec"), {"__name__": "example"})
    variant, *name, value = capsys.readouterr().out.split()
    assert [variant, *name] == ["raw:", "mean", "IoU"]
    assert float(value) > 0.8


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("v9",), "no version 'v9'"),
        (("v1", "--variants", "clean"), "voc/mean/v1 does not store clean: it has raw"),
        (("v1", "--train-where", "split = 'train'"), "give both --train-where and --val-where"),
        (("v1", "--train-where", "true", "--val-where", "true"), "12 images are both to train on and to judge by"),
        (("v1", "--task", "depth"), "not enough images with a depth map"),
        (("v1", "--task", "knn", "--folds", 40), "40 folds need as many images with a mask: 'true' leaves"),
        (("v1", "--train-where", "nonsense", "--val-where", "true"), "nonsense"),
    ],
)
def test_what_cannot_be_measured_is_told_in_a_line(voc: Path, words: tuple[str, ...], told: str) -> None:
    said = call("eval", *words, "--root", voc)
    assert (said.code, told in said.err, said.err.count("\n")) == (1, True, 1), said.err
