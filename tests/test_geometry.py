"""Features, photographs, masks, depth maps and boxes lie on each other whatever the shape of image and input."""

import random
from pathlib import Path

import duckdb
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mean_patches import PATCH, decomposer
from PIL import Image
from torch.utils.data import DataLoader

import dvt
from featstore import FeatureDataset, FeatureStream, GridBatchSampler, loader
from featstore.build import build_version
from featstore.difference import compare_versions
from featstore.errors import InputError
from featstore.exchange.export import ExportRequest, export_version
from featstore.exchange.source import Wanted
from featstore.geometry import Geometry
from featstore.index import index_dataset
from featstore.order import Order
from featstore.plan import Request
from featstore.rebuild import rebuild_manifest
from featstore.verify import verify_store

SIZES = ((120, 160), (160, 120), (100, 200), (150, 150), (90, 240), (120, 160), (200, 100), (121, 163))
"""(height, width) of the images [pixels]."""


def mark_of(height: int, width: int) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of what is planted: off the middle, inside every centred square."""
    side = min(height, width)
    top, left = (height - side) // 2 + side // 8, (width - side) // 2 + side // 4
    return top, left, top + side // 2, left + side // 3


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of grey images with a red mark, which their masks, depth maps and boxes have, too."""
    folder = tmp_path_factory.mktemp("planted")
    rows = []
    for number, (height, width) in enumerate(SIZES):
        top, left, bottom, right = mark_of(height, width)
        image = np.full((height, width, 3), (0, number, 0), np.uint8)
        mask, depth = np.zeros((height, width), np.uint8), np.full((height, width), 7, np.uint16)
        image[top:bottom, left:right] = (255, number, 0)
        mask[top:bottom, left:right], depth[top:bottom, left:right] = 3, 5000
        Image.fromarray(image).save(folder / f"{number}.png")
        (folder / ".maps").mkdir(exist_ok=True)
        Image.fromarray(mask).save(folder / ".maps" / f"{number}-mask.png")
        Image.fromarray(depth).save(folder / ".maps" / f"{number}-depth.png")
        rows.append((f"{number}.png", left, top, right, bottom))
    store = tmp_path_factory.mktemp("store")
    index_dataset(store, "marks", folder)
    with duckdb.connect(store / "manifest.duckdb") as connection:
        connection.execute("UPDATE images SET mask_path = '.maps/' || image_id[:1] || '-mask.png'")
        connection.execute("UPDATE images SET depth_path = '.maps/' || image_id[:1] || '-depth.png'")
        for name, *box in rows:
            connection.execute(
                "INSERT INTO objects VALUES ('marks', ?, 1, 0, 'mark', ?, ?, ?, ?, false, false, false, NULL)",
                [name, *box],
            )
    return store


@pytest.mark.parametrize("size", [(96, 96), (96, 128)])
@pytest.mark.parametrize("resize", ["squash", "shortest", "keep"])
def test_a_planted_mark_is_where_features_mask_depth_and_box_say(
    planted: Path, resize: str, size: tuple[int, int]
) -> None:
    build_version(planted, Request("marks", f"{resize}{size[1]}"), decomposer(size, resize))
    wanted = dict.fromkeys(("image", "mask", "depth", "objects"), True)
    data = FeatureDataset(planted, "marks", backbone=f"{resize}{size[1]}", variants="raw", **wanted)
    assert len(data) == len(SIZES)
    for number, item in enumerate(data):
        mask, red = item["mask"] == 3, item["raw"][0].float()
        covered = F.avg_pool2d(mask[None].float(), PATCH)[0]
        assert (covered - red).abs().max() < 0.2, "an edge may lie half a pixel off"
        assert (covered - red).abs().mean() < 0.02
        assert torch.equal(item["depth"] == 5000, mask)
        photograph = (item["image"][0] > 127) == mask
        assert photograph.float().mean() > 0.97
        rows, columns = (torch.nonzero(mask.any(dim=d))[:, 0] for d in (1, 0))
        seen = torch.tensor([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]]).float()
        assert (item["objects"]["boxes"] - seen).abs().max() <= 1
        height, width = SIZES[number]
        if resize == "keep":
            assert mask.shape == dvt.nearest_input((height, width), dvt.inputs_near(size, PATCH, PATCH))
        else:
            assert mask.shape == size


def test_the_mark_keeps_its_shape_with_shortest_and_nearly_with_keep(planted: Path) -> None:
    for resize, most in (("shortest", 0.06), ("keep", 0.15)):
        build_version(planted, Request("marks", f"shape-{resize}"), decomposer((96, 96), resize))
        for item in FeatureDataset(planted, "marks", backbone=f"shape-{resize}", variants="raw", mask=True):
            mask = item["mask"] == 3
            ratio = mask.any(dim=1).sum() / mask.any(dim=0).sum()  # 1/2 of the shortest side high, 1/3 wide
            beyond = 240 / 90 / 2 if resize == "keep" and item["image_id"] == "4.png" else 1  # wider than any input
            assert abs(float(ratio) / 1.5 / beyond - 1) < most, item["image_id"]


def test_both_rooms_frame_alike() -> None:
    draws = random.Random(0)
    for _ in range(2000):
        image = draws.randint(1, 3000), draws.randint(1, 3000)
        size = draws.randint(1, 60) * 14, draws.randint(1, 60) * 14
        inputs = dvt.inputs_near(size, 14, 14)
        assert Geometry(size, "shortest").box(*image) == dvt.centred(image, size)
        assert Geometry(size, "keep", inputs).target(*image) == dvt.nearest_input(image, inputs)
        for height, width in inputs:
            assert Geometry(size, "keep", inputs).nominal((height // 14, width // 14), 14) == (
                size[0] // 14,
                size[1] // 14,
            )


def test_inputs_have_about_as_many_patches_and_no_shape_is_far() -> None:
    inputs = dvt.inputs_near((518, 518), 14, 14)
    counts = [height * width / 14**2 for height, width in inputs]
    assert max(counts) / min(counts) < 1.05
    for shape in np.geomspace(0.5, 2, 50):
        height, width = dvt.nearest_input((1000, round(1000 * shape)), inputs)
        assert abs(np.log(width / height / shape)) < np.log(1.12)
    overlapping = dvt.inputs_near((518, 518), 14, 7)
    assert all((side - 14) % 7 == 0 for size in overlapping for side in size)


@pytest.fixture(scope="module")
def ragged(planted: Path) -> Path:
    build_version(planted, Request("marks", "ragged"), decomposer((96, 96), "keep"))
    return planted


def test_each_shard_has_one_grid_and_sql_knows_it(ragged: Path) -> None:
    with duckdb.connect(ragged / "manifest.duckdb", read_only=True) as connection:
        sql = "SELECT height, width, grid_height, grid_width FROM stored WHERE backbone = 'ragged'"
        found = connection.execute(sql).fetchall()
    inputs = dvt.inputs_near((96, 96), PATCH, PATCH)
    assert len(found) == len(SIZES)
    for height, width, *grid in found:
        assert [side // PATCH for side in dvt.nearest_input((height, width), inputs)] == grid
    assert not verify_store(ragged).damage


def test_a_mixed_batch_is_a_list_and_a_loader_keeps_grids_apart(ragged: Path) -> None:
    data = FeatureDataset(ragged, "marks", backbone="ragged", variants="raw", mask=True)
    alone = {item["image_id"]: item for item in data}
    mixed = next(iter(DataLoader(data, batch_size=len(SIZES))))
    assert isinstance(mixed["raw"], list)
    for name, raw, mask in zip(mixed["image_id"], mixed["raw"], mixed["mask"], strict=True):
        assert torch.equal(raw, alone[name]["raw"])
        assert torch.equal(mask, alone[name]["mask"])
    kinds = {
        "loader": loader(data, 2, shuffle=True, workers=1),
        "stream": DataLoader(FeatureStream(data, 2), batch_size=None, num_workers=1),
        "sampler": DataLoader(data, batch_sampler=GridBatchSampler(data, 2, shuffle=True)),  # type: ignore[arg-type]
    }
    for kind, batches in kinds.items():
        seen = []
        for batch in batches:
            assert isinstance(batch["raw"], torch.Tensor), kind
            for name, raw in zip(batch["image_id"], batch["raw"], strict=True):
                assert torch.equal(raw, alone[name]["raw"]), kind
            seen += batch["image_id"]
        assert sorted(seen) == sorted(alone), kind
        assert len(batches) == sum(1 for _ in batches), kind


def test_a_crop_makes_batches_of_any_images(ragged: Path) -> None:
    data = FeatureDataset(ragged, "marks", backbone="ragged", variants="raw", mask=True, crop=(7, 8))
    batch = next(iter(DataLoader(data, batch_size=len(SIZES))))
    assert batch["raw"].shape == (len(SIZES), 3, 7, 8)
    assert batch["mask"].shape == (len(SIZES), 7 * PATCH, 8 * PATCH)
    covered = F.avg_pool2d((batch["mask"] == 3).float(), PATCH)
    assert (covered - batch["raw"][:, 0].float()).abs().mean() < 0.02
    with pytest.raises(InputError, match="does not fit"):
        FeatureDataset(ragged, "marks", backbone="ragged", variants="raw", crop=(12, 12))


def test_batches_of_groups_are_dealt_out_like_samples() -> None:
    generator = np.random.default_rng(0)
    groups, shards = generator.integers(0, 4, 103), generator.integers(0, 9, 103)
    for uneven in ("keep", "pad", "drop"):
        for drop_last in (False, True):
            ranks = [Order("shards", 1, 3, 5, drop_last, rank, 3, uneven) for rank in range(3)]
            dealt = [order.grouped(shards, groups, 2) for order in ranks]
            assert [len(own) for own in dealt] == [order.grouped_length(groups) for order in ranks]
            batches = [batch for own in dealt for batch in own]
            assert all(len(set(groups[batch].tolist())) == 1 for batch in batches)
            seen = sorted(place for batch in batches for place in batch.tolist())
            if uneven == "keep" and not drop_last:
                assert seen == list(range(103))
            if uneven != "keep":
                assert len({len(own) for own in dealt}) == 1


def test_a_build_in_two_goes_has_the_bytes_of_one(planted: Path, tmp_path: Path) -> None:
    source = (
        duckdb.connect(planted / "manifest.duckdb", read_only=True).execute("SELECT source FROM datasets").fetchone()
    )
    assert source is not None
    stores = []
    for name, goes in (("one", [{}]), ("two", [{"limit": 8, "where": "width > 150"}, {}])):
        store = tmp_path / name
        index_dataset(store, "marks", Path(source[0]))
        for go in goes:
            build_version(store, Request("marks", "fake", shard_size=1, **go), decomposer((96, 96), "keep"))  # type: ignore[arg-type]
        stores.append(FeatureDataset(store, "marks", backbone="fake", variants="raw"))
    assert all(torch.equal(one["raw"], two["raw"]) for one, two in zip(*stores, strict=True))


def test_an_export_takes_one_grid_and_says_how(ragged: Path, tmp_path: Path) -> None:
    wanted = Wanted("marks/ragged/v1")
    with pytest.raises(InputError, match="grid_height = 10 AND grid_width = 14"):
        export_version(ragged, ExportRequest(wanted, "npy", tmp_path / "out"))
    one = Wanted("marks/ragged/v1", where="grid_height = 10 AND grid_width = 14")
    assert export_version(ragged, ExportRequest(one, "npy", tmp_path / "out")).images == 3


def test_versions_of_other_frames_are_compared_where_they_can_be(ragged: Path) -> None:
    build_version(ragged, Request("marks", "ragged"), decomposer((96, 96), "squash"))
    build_version(ragged, Request("marks", "ragged"), decomposer((96, 96), "shortest"))
    kept = compare_versions(ragged, "marks/ragged/v1", "v2").distances[0]
    assert kept.cosine is not None
    assert kept.cosine > 0.9
    middle = compare_versions(ragged, "marks/ragged/v1", "v3").distances[0]
    assert middle.cosine is None
    assert "middle" in middle.note


def test_a_lost_manifest_knows_the_grids_again(ragged: Path) -> None:
    (ragged / "manifest.duckdb").unlink()
    rebuild_manifest(ragged)
    with duckdb.connect(ragged / "manifest.duckdb", read_only=True) as connection:
        rows = connection.execute(
            "SELECT DISTINCT grid_height, grid_width FROM versions WHERE backbone = 'ragged'"
        ).fetchall()
    assert rows == [(12, 12)]
    assert not verify_store(ragged).damage
