"""Readers over a store built with the numpy decomposer."""

import gc
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from types import FunctionType, ModuleType

import h5py
import numpy as np
import pytest
import torch
from bad_images import make_voc
from fakes import GRID, WIDTH, FakeDecomposer, expected_clean, make_folder
from PIL import Image
from torch.utils.data import DataLoader

import featstore
from featstore.build import build_version
from featstore.compute import PARTS
from featstore.dataset import FeatureDataset
from featstore.errors import CorruptError, DecodeError, InputError, NotInStoreError, QueryError
from featstore.images import decode
from featstore.index import index_dataset
from featstore.plan import Request
from featstore.reading import ShardReader


class Recipe(FakeDecomposer):
    """The fake, with an input size in its recipe as real ones have."""

    def recipe(self) -> dict[str, object]:
        return {"backbone": {"id": "fake", "input": [20, 30]}, "method": {"name": "fake", "scale": self.scale}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readers")
    store = folder / "store"
    index_dataset(store, "pets", make_folder(folder / "pets", count=10))
    build_version(store, Request("pets", "fake", shard_size=3), Recipe())
    index_dataset(store, "voc", make_voc(folder / "voc").folder)
    build_version(store, Request("voc", "fake", variants=("raw", "clean", "artifact")), Recipe())
    return store


def test_items_are_what_was_computed(root: Path) -> None:
    data = FeatureDataset(root, "pets", backbone="fake", variants=PARTS, prefix=True, image=True)
    assert len(data) == 10
    assert data.image_ids == sorted(data.image_ids)
    for index in range(10):
        item = data[index]
        assert item["image_id"] == data.image_ids[index]
        image = decode((data.extras.source / data.extras.images[index].decode()).read_bytes())
        expected = torch.from_numpy(expected_clean(image)).half().permute(2, 0, 1)
        assert torch.equal(item["clean"], expected)
        assert item["clean"].shape == (WIDTH, *GRID)
        total = item["clean"].float() + item["artifact"].float() + item["residual"].float()
        torch.testing.assert_close(total, item["raw"].float(), atol=3e-4, rtol=0)
        assert item["prefix"].shape == (1, WIDTH)
        assert item["image"].shape == (3, 20, 30)
    assert data[-1]["image_id"] == data[9]["image_id"]
    with pytest.raises(IndexError):
        data[10]


def test_an_item_is_its_own_memory(root: Path) -> None:
    data = FeatureDataset(root, "pets", backbone="fake")
    first = data[0]["clean"].clone()
    data[0]["clean"].zero_()
    assert torch.equal(data[0]["clean"], first)


def test_a_residual_that_is_not_stored_is_worked_out(root: Path) -> None:
    data = FeatureDataset(root, "voc", backbone="fake", variants=("residual",))
    item = data[3]["residual"]
    with h5py.File(data.stored[0].pool.paths[data.stored[0].shard[3]]) as file:
        assert "residual" not in file
        raw, clean, artifact = (
            file[name][data.stored[0].row[3]].astype(np.float64) for name in ("raw", "clean", "artifact")
        )
    expected = torch.from_numpy((raw - clean - artifact).astype(np.float16)).permute(2, 0, 1)
    assert torch.equal(item, expected)
    torch.testing.assert_close(item.float(), torch.full_like(item, 0.25).float(), atol=6e-3, rtol=0)


@pytest.mark.parametrize(
    ("where", "count"),
    [("label = 'cats'", 5), ("heldout_r2 > 0.4", 10), ("image_id = 'dogs/000.png' -- one", 1), (None, 10)],
)
def test_where_is_sql_over_everything_known_of_an_image(root: Path, where: str | None, count: int) -> None:
    assert len(FeatureDataset(root, "pets", backbone="fake", where=where)) == count


def test_splits_lists_and_masks_of_a_voc_tree(root: Path) -> None:
    train = FeatureDataset(root, "voc", backbone="fake", where="split = 'train'")
    assert len(train) == 4
    where = "list_contains(splits, 'segmentation/val')"
    data = FeatureDataset(root, "voc", backbone="fake", where=where, image=True, mask=True)
    batch = next(iter(DataLoader(data, batch_size=2)))
    assert batch["image"].shape == (2, 3, 20, 30)
    assert batch["mask"].shape == (2, 20, 30)
    for index, labels in enumerate(batch["mask"]):
        with Image.open(data.extras.source / data.extras.masks[index].decode()) as file:
            expected = np.array(file.resize((30, 20), Image.Resampling.NEAREST))
        np.testing.assert_array_equal(labels.numpy(), expected)
    assert set(batch["mask"].unique().tolist()) == {0, 12}
    with pytest.raises(NotInStoreError, match="mask_path IS NOT NULL"):
        FeatureDataset(root, "voc", backbone="fake", mask=True)


def test_mask_and_image_lie_on_each_other_and_on_the_grid(root: Path) -> None:
    """The made masks mark rows 4-34 and columns 3-29 of 40×60: squashed to 20×30, rows 2-16 and columns 2-14."""
    data = FeatureDataset(root, "voc", backbone="fake", where="mask_path IS NOT NULL", mask=True)
    inside = (data[0]["mask"] == 12).nonzero()
    assert inside.amin(dim=0).tolist() == [2, 1]
    assert inside.amax(dim=0).tolist() == [16, 14]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
def test_workers_read_the_same_as_one_process(root: Path, method: str) -> None:
    data = FeatureDataset(root, "pets", backbone="fake", variants=("raw", "clean"))
    first = data[0]["clean"].clone()  # maps are open before the workers start
    alone = list(DataLoader(data, batch_size=3))
    shared = list(DataLoader(data, batch_size=3, num_workers=4, multiprocessing_context=method))
    assert [batch["image_id"] for batch in alone] == [batch["image_id"] for batch in shared]
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one["raw"], other["raw"])
        assert torch.equal(one["clean"], other["clean"])
    assert torch.equal(alone[0]["clean"][0], first)


def test_it_pickles_after_use(root: Path) -> None:
    data = FeatureDataset(root, "pets", backbone="fake")
    before = data[4]["clean"]
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(again[4]["clean"], before)


def test_the_newest_version_that_holds_the_variants_is_taken(root: Path) -> None:
    build_version(root, Request("pets", "fake", variants=("raw",)), Recipe(scale=3.0))
    assert FeatureDataset(root, "pets", backbone="fake").version.number == 1
    raw = FeatureDataset(root, "pets", backbone="fake", variants=("raw",))
    assert raw.version.number == 2
    assert FeatureDataset(root, "pets", backbone="fake", variants=("raw",), version="v1").version.number == 1
    digest = raw.version.digest[:8]
    assert FeatureDataset(root, "pets", backbone="fake", variants=("raw",), version=digest).version.number == 2


def test_a_version_without_the_variant_says_what_it_has(tmp_path: Path) -> None:
    index_dataset(tmp_path / "store", "pets", make_folder(tmp_path / "pets"))
    build_version(tmp_path / "store", Request("pets", "fake", variants=("raw",)), Recipe())
    with pytest.raises(NotInStoreError, match="pets/fake/v1 does not store clean, only raw"):
        FeatureDataset(tmp_path / "store", "pets", backbone="fake", version="v1")


def test_index_finds_an_image_and_a_missing_one_raises(root: Path) -> None:
    data = FeatureDataset(root, "pets", backbone="fake")
    assert data[data.index("dogs/004.png")]["image_id"] == "dogs/004.png"
    with pytest.raises(NotInStoreError, match=r"'dogs/999\.png' is not among"):
        data.index("dogs/999.png")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"dataset": "cars"}, NotInStoreError, "there are: pets, voc"),
        ({"backbone": "other"}, NotInStoreError, "pets/fake/v1"),
        ({"version": "v9"}, NotInStoreError, "no version"),
        ({"dataset": "voc", "version": "v1", "variants": ("prefix",)}, InputError, "choose from"),
        ({"variants": ("clear",)}, InputError, "choose from raw, clean, artifact, residual"),
        ({"where": "colour = 'red'"}, QueryError, "colour"),
        ({"where": "label = 'birds'"}, NotInStoreError, "is left by where"),
        ({"dataset": ""}, InputError, "name a data set"),
        ({"where": "(SELECT count(*) FROM read_text('/etc/hosts')) > 0"}, QueryError, "disabled by configuration"),
        ({"where": "false) UNION ALL (SELECT 'x', '/x.h5', 0, '/etc/hosts', NULL, 0"}, QueryError, "UNION"),
        ({"where": "true); COPY images TO '/tmp/x' --"}, QueryError, "parsed|statements"),
    ],
)
def test_wrong_requests_say_what_there_is(
    root: Path, options: dict[str, str], error: type[Exception], words: str
) -> None:
    arguments = {"dataset": "pets", "backbone": "fake"} | options
    with pytest.raises(error, match=words):
        FeatureDataset(root, **arguments)  # type: ignore[arg-type]


def test_verify_finds_a_flipped_bit(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    index_dataset(folder, "pets", make_folder(tmp_path / "pets"))
    build_version(folder, Request("pets", "fake"), Recipe())
    plain = FeatureDataset(folder, "pets", backbone="fake")
    reader, row = plain.stored[0].pool[0], int(plain.stored[0].row[2])
    offsets = reader.chunks["clean"].offsets
    assert offsets is not None
    with reader.path.open("r+b") as file:
        file.seek(int(offsets[row]) + 5)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 4]))
    data = FeatureDataset(folder, "pets", backbone="fake", verify=True)
    assert data[1]["image_id"] == plain.image_ids[1]
    with pytest.raises(CorruptError, match="is not what was written"):
        data[2]


def test_chunks_of_several_samples_are_read_through_hdf5(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((3, 2, 2, 4)).astype(np.float16)
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.create_dataset("raw", data=values, chunks=(1, 2, 2, 4), compression="gzip")
        file.create_dataset("clean", data=values, chunks=(3, 2, 2, 4))
        file.attrs.update({"format": "featstore", "format_version": 1})
    reader = ShardReader(tmp_path / "s.h5")
    assert reader.chunks["clean"].offsets is None
    for row in range(3):
        np.testing.assert_array_equal(reader.read("raw", row), values[row])
        np.testing.assert_array_equal(reader.read("clean", row), values[row])
    with pytest.raises(NotInStoreError):
        reader.read("raw", 3)


def test_importing_featstore_does_not_import_torch() -> None:
    script = "import featstore, sys; assert 'torch' not in sys.modules; featstore.FeatureDataset; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
    assert featstore.__all__ == ["FeatureDataset", "FeatureStream", "GridBatchSampler", "collate", "loader", "open"]


def test_items_collate_to_batches_of_channels_first(root: Path) -> None:
    data = FeatureDataset(root, "pets", backbone="fake", variants=PARTS, version="v1", prefix=True, dtype=torch.float32)
    batch = next(iter(DataLoader(data, batch_size=4)))
    for name in PARTS:
        assert batch[name].shape == (4, WIDTH, *GRID)
        assert batch[name].dtype == torch.float32
    assert batch["prefix"].shape == (4, 1, WIDTH)
    assert batch["prefix"].dtype == torch.float32
    assert batch["image_id"] == data.image_ids[:4]


def test_an_item_is_a_view_of_channels_last_memory(root: Path) -> None:
    item = FeatureDataset(root, "pets", backbone="fake")[0]["clean"]
    assert item.dtype == torch.float16
    assert item.stride() == (1, GRID[1] * WIDTH, WIDTH)


def test_the_indices_of_numpy_and_torch_are_indices(root: Path) -> None:
    data = FeatureDataset(root, "pets", backbone="fake")
    assert data[np.int64(-2)]["image_id"] == data[torch.tensor(8)]["image_id"] == data.image_ids[8]  # type: ignore[index]
    with pytest.raises(IndexError):
        data[-11]


def test_what_the_version_does_not_have_is_said_when_opening(tmp_path: Path) -> None:
    class Bare(FakeDecomposer):
        prefix_tokens = 0

    index_dataset(tmp_path / "store", "pets", make_folder(tmp_path / "pets", count=2))
    build_version(tmp_path / "store", Request("pets", "fake"), Bare())
    assert len(FeatureDataset(tmp_path / "store", "pets", backbone="fake")) == 2
    with pytest.raises(NotInStoreError, match="holds no prefix tokens"):
        FeatureDataset(tmp_path / "store", "pets", backbone="fake", prefix=True)
    with pytest.raises(NotInStoreError, match="names no input size"):
        FeatureDataset(tmp_path / "store", "pets", backbone="fake", image=True)


def test_a_photograph_that_is_gone_is_named(tmp_path: Path) -> None:
    index_dataset(tmp_path / "store", "pets", make_folder(tmp_path / "pets", count=2))
    build_version(tmp_path / "store", Request("pets", "fake"), Recipe())
    data = FeatureDataset(tmp_path / "store", "pets", backbone="fake", image=True)
    (tmp_path / "pets" / "cats" / "001.png").unlink()
    (tmp_path / "pets" / "dogs" / "000.png").write_bytes(b"")
    with pytest.raises(DecodeError, match=r"001\.png: No such file or directory; has the data set been moved"):
        data[0]
    with pytest.raises(DecodeError, match=r"000\.png: the file is empty"):
        data[1]


def test_verify_looks_at_the_parts_of_a_residual_that_is_worked_out(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    shutil.copytree(root, folder)
    plain = FeatureDataset(folder, "voc", backbone="fake", variants=("residual",))
    reader = plain.stored[0].pool[plain.stored[0].shard.item(3)]
    offsets = reader.chunks["artifact"].offsets
    assert offsets is not None
    data = bytearray(reader.path.read_bytes())
    data[int(offsets[plain.stored[0].row.item(3)])] ^= 1
    reader.path.write_bytes(data)
    verified = FeatureDataset(folder, "voc", backbone="fake", variants=("residual",), verify=True)
    verified[2]
    with pytest.raises(CorruptError, match="artifact of row"):
        verified[3]


def test_no_image_is_a_python_object(root: Path) -> None:
    """What workers share after a fork are columns: objects would be copied, page by page, as their counts change."""
    options = {"image": True, "label": True, "variants": PARTS, "version": "v1"}
    data = FeatureDataset(root, "pets", backbone="fake", **options)  # type: ignore[arg-type]
    data[0]
    list(DataLoader(data, batch_size=5))
    data.index("dogs/004.png")
    seen, waiting = {id(data)}, [data.__dict__]
    texts = []
    while waiting:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, type | ModuleType | FunctionType):
            continue
        seen.add(id(each))
        texts += [each] if isinstance(each, str | bytes) else []
        waiting += gc.get_referents(each)
    names = {name for image_id in data.image_ids for name in (image_id, image_id.encode())}
    assert not names & set(texts)
