"""Clean maps on a grid of the user's choice: the fifth variant, beside four that stay on the ViT's own grid."""

import json
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import h5py
import jsonschema
import numpy as np
import pytest
import torch
from fakes import GRID, WIDTH, FakeDecomposer, Maps, expected_clean, expected_fine, make_folder
from older import make_older
from torch.utils.data import DataLoader

from featstore import manifest
from featstore.build import build_version
from featstore.compute import PARTS, VARIANTS
from featstore.dataset import FeatureDataset
from featstore.errors import CorruptError, InputError, NotInStoreError
from featstore.images import decode
from featstore.index import index_dataset
from featstore.plan import Request, make_plan
from featstore.quantise import quantise
from featstore.reading import ShardReader
from featstore.shard import ShardHeader, ShardWriter, read_contents
from featstore.versions import describe_version

FINE = (7, 3)
REQUEST = Request("pets", "fake", shard_size=4)


def fine(**options: float) -> FakeDecomposer:
    return FakeDecomposer(fine_grid=FINE, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six images called ``pets``, a store in which they are indexed, and one built with a fine grid."""
    folder = tmp_path_factory.mktemp("made")
    index_dataset(folder / "indexed", "pets", make_folder(folder / "pets"))
    report = build_version(Path(shutil.copytree(folder / "indexed", folder / "built")), REQUEST, fine())
    assert (report.variants, report.computed, report.failed) == (VARIANTS, 6, 0)
    return folder


@pytest.fixture
def indexed(made: Path, tmp_path: Path) -> Path:
    """A store of one's own in which the images are indexed."""
    return Path(shutil.copytree(made / "indexed", tmp_path / "store"))


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A store of one's own that is built with a fine grid."""
    return Path(shutil.copytree(made / "built", tmp_path / "store"))


def shards(root: Path) -> list[Path]:
    return sorted(root.rglob("*.h5"))


def rows(root: Path, sql: str) -> list[tuple[object, ...]]:
    with manifest.reading(root) as connection:
        return connection.execute(sql).fetchall()


def flip(path: Path, name: str, row: int) -> None:
    with h5py.File(path) as file:
        place = file[name].id.get_chunk_info_by_coord((row, 0, 0, 0)).byte_offset
    data = bytearray(path.read_bytes())
    data[place + 9] ^= 1
    path.write_bytes(data)


def test_each_variant_comes_out_in_its_own_shape(root: Path, made: Path) -> None:
    data = FeatureDataset(root, "pets", backbone="fake", variants=VARIANTS, verify=True)
    paths = dict(rows(root, "SELECT image_id, path FROM images"))
    for item in data:  # type: ignore[attr-defined]
        image = decode((made / "pets" / str(paths[item["image_id"]])).read_bytes())
        for name, expected in (("clean", expected_clean(image)), ("clean_fine", expected_fine(image, FINE))):
            assert torch.equal(item[name], torch.from_numpy(expected).half().permute(2, 0, 1)), name
        assert {item[name].shape for name in PARTS} == {(WIDTH, *GRID)}
        assert item["clean_fine"].shape == (WIDTH, *FINE)


@pytest.mark.parametrize("variants", [("clean_fine",), ("clean_fine", "clean")])
def test_it_collates_alone_and_with_others_and_in_workers(root: Path, variants: tuple[str, ...]) -> None:
    data = FeatureDataset(root, "pets", backbone="fake", variants=variants, dtype=torch.float32)
    alone = list(DataLoader(data, batch_size=4))
    shared = list(DataLoader(data, batch_size=4, num_workers=2, multiprocessing_context="fork"))
    assert [batch["clean_fine"].shape for batch in alone] == [(4, WIDTH, *FINE), (2, WIDTH, *FINE)]
    assert alone[0].keys() == {"image_id", *variants}
    for one, other in zip(alone, shared, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in variants)


def test_plain_h5py_finds_it_and_the_schema_tells_of_it(root: Path) -> None:
    schema = json.loads((files("featstore.schemas") / "shard.schema.json").read_text(encoding="utf-8"))
    with h5py.File(shards(root)[0]) as file:
        data = file["clean_fine"]
        assert (data.shape, data.dtype, data.chunks) == ((4, *FINE, WIDTH), np.float16, (1, *FINE, WIDTH))
        assert [dimension.label for dimension in data.dims] == ["sample", "row", "column", "channel"]
        assert file.attrs["fine_grid"].tolist() == list(FINE)
        reader = ShardReader(shards(root)[0])
        assert reader.chunks["clean_fine"].offsets is not None
        np.testing.assert_array_equal(reader.read("clean_fine", 2), data[2])
        described = {"shape": list(data.shape), "dtype": str(data.dtype), "chunks": list(data.chunks), "filters": 0}
    named = schema["properties"]["datasets"]["properties"]["clean_fine"] | {"$defs": schema["$defs"]}
    jsonschema.validate(described, named)
    contents = read_contents(shards(root)[0])
    assert (contents.header.grid, contents.header.fine_grid, contents.checksums.shape) == (GRID, FINE, (4, 5))


def test_damage_is_found_in_it_and_in_the_other_clean(root: Path) -> None:
    flip(shards(root)[0], "clean_fine", 2)
    flip(shards(root)[0], "clean", 3)
    listed = FeatureDataset(root, "pets", backbone="fake", variants=("clean_fine",), verify=True)
    reader = ShardReader(shards(root)[0], verify=True)
    with pytest.raises(CorruptError, match="clean_fine of row 2 is not what was written"):
        listed[2]
    with pytest.raises(CorruptError, match="clean_fine of row 2"):
        reader.read("clean_fine", 2)
    with pytest.raises(CorruptError, match="clean of row 3"):
        reader.read("clean", 3)
    assert listed[3]["clean_fine"].shape == (WIDTH, *FINE)
    assert reader.read("clean", 2).shape == (*GRID, WIDTH)


def test_the_plan_knows_its_bytes(root: Path) -> None:
    plan = make_plan(root, REQUEST, FakeDecomposer(scale=2.0, fine_grid=FINE))
    written = 0
    for path in shards(root):
        with h5py.File(path) as file:
            written += sum(file[name].nbytes for name in (*VARIANTS, "prefix_tokens"))
    assert plan.bytes_to_write == written == 6 * WIDTH * 2 * (4 * 20 + 21 + 1)
    only = make_plan(root, replace(REQUEST, variants=("clean_fine",)), FakeDecomposer(scale=2.0, fine_grid=FINE))
    assert only.bytes_to_write == 6 * WIDTH * 2 * (21 + 1)


def test_a_build_without_it_has_no_trace_of_it(indexed: Path) -> None:
    report = build_version(indexed, REQUEST, FakeDecomposer())
    assert report.variants == PARTS
    assert make_plan(indexed, REQUEST, fine()).recipe.digest != report.digest
    with h5py.File(shards(indexed)[0]) as file:
        tables = {"image_id", "sha256", "checksum", "checksum_prefix", "failures", "stats"}
        assert set(file) == {*PARTS, "prefix_tokens", *tables}
        head = {"format", "format_version", "dataset", "backbone", "digest", "recipe", "provenance"}
        assert set(file.attrs) == head | {"variants", "grid", "channels", "prefix_count", "units", "store", "codec"}
    assert describe_version(indexed, "v1")["fine_grid"] is None
    with pytest.raises(NotInStoreError, match="no version of pets/fake stores clean_fine"):
        FeatureDataset(indexed, "pets", backbone="fake", variants=("clean_fine",))
    with pytest.raises(InputError, match=r"does not give 'clean_fine'.*--clean-grid"):
        make_plan(indexed, replace(REQUEST, variants=("clean_fine",)), FakeDecomposer())


def test_variants_are_added_later_and_never_taken_away(indexed: Path) -> None:
    clean = replace(REQUEST, variants=("clean",))
    assert build_version(indexed, clean, fine()).variants == ("clean",)
    assert read_contents(shards(indexed)[0]).header.fine_grid is None
    more = build_version(indexed, replace(REQUEST, variants=("clean_fine",)), fine())
    assert (more.version, more.variants, more.computed) == ("v1", ("clean", "clean_fine"), 6)
    fewer = build_version(indexed, clean, fine())
    assert (fewer.version, fewer.computed, fewer.present) == ("v1", 0, 6)
    assert rows(indexed, "SELECT DISTINCT variants FROM stored") == [(["clean", "clean_fine"],)]
    sums = "count(checksum_raw), count(checksum_clean), count(checksum_clean_fine)"
    assert rows(indexed, f"SELECT {sums} FROM features") == [(0, 6, 6)]
    assert FeatureDataset(indexed, "pets", backbone="fake", variants=("clean_fine",), verify=True)[5]


def test_a_sealed_shard_that_was_not_listed_is_taken_in(indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("featstore.committing.commit_shard", die)
        with pytest.raises(KeyboardInterrupt):
            build_version(indexed, REQUEST, fine())
    decomposer = fine()
    assert build_version(indexed, REQUEST, decomposer).present == 4
    assert sum(decomposer.calls) == 2
    assert rows(indexed, "SELECT count(checksum_clean_fine) FROM features") == [(6,)]


def test_a_shard_whose_grid_is_not_told_or_wrong_is_refused(root: Path) -> None:
    for name, value in (("fine_grid", [3, 7]), ("fine_grid", [7]), ("fine_grid", None)):
        copy = root / "copy.h5"
        shutil.copy(shards(root)[0], copy)
        with h5py.File(copy, "a") as file:
            del file.attrs[name]
            if value:
                file.attrs[name] = value
        with pytest.raises(CorruptError, match=r"copy\.h5"):
            read_contents(copy)
        copy.unlink()
    header = ShardHeader("d", "b", "0" * 64, "{}", ("clean_fine",), GRID, WIDTH, 0, "{}")
    with pytest.raises(InputError, match="a grid of its own"), ShardWriter(root / "new.h5", header, 1):
        pass
    assert not list(root.glob(".tmp-*"))


def test_what_float16_cannot_hold_fails_its_image_alone(indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, seen = FakeDecomposer.one, []

    def one(self: FakeDecomposer, image: np.ndarray) -> Maps:
        seen.append(image)
        maps = honest(self, image)
        assert maps.clean_fine is not None
        return replace(maps, clean_fine=maps.clean_fine * 1e6) if len(seen) == 1 else maps

    monkeypatch.setattr(FakeDecomposer, "one", one)
    report = build_version(indexed, REQUEST, fine())
    assert (report.computed, report.failed) == (5, 1)
    ((step, error),) = rows(indexed, "SELECT step, error FROM failures")
    assert step == "features"
    assert "a clean_fine feature of magnitude" in str(error)


def test_only_what_is_stored_has_to_be_there_and_to_fit() -> None:
    image = np.zeros((6, 8, 3), np.uint8)
    maps = fine().one(image)
    spoilt = replace(maps, clean_fine=np.full((*FINE, WIDTH), np.nan, np.float32))
    assert list(quantise(spoilt, PARTS)) == list(PARTS)
    with pytest.raises(InputError, match="a clean_fine feature is NaN"):
        quantise(spoilt, ("clean_fine",))
    with pytest.raises(InputError, match="no clean_fine to store, only raw, clean, artifact"):
        quantise(FakeDecomposer().one(image), ("clean_fine",))


def test_a_store_from_before_goes_on(indexed: Path) -> None:
    before = build_version(indexed, REQUEST, FakeDecomposer())
    make_older(indexed, 1)
    first = FeatureDataset(indexed, "pets", backbone="fake", verify=True)[0]["clean"]
    assert describe_version(indexed, "v1")["fine_grid"] is None
    with pytest.raises(NotInStoreError, match="stores clean_fine"):
        FeatureDataset(indexed, "pets", backbone="fake", variants=("clean_fine",))
    again = build_version(indexed, REQUEST, FakeDecomposer())
    assert (again.version, again.digest, again.computed) == ("v1", before.digest, 0)
    assert build_version(indexed, REQUEST, fine()).version == "v2"
    data = FeatureDataset(indexed, "pets", backbone="fake", variants=("clean_fine",), verify=True)
    assert data[0]["clean_fine"].shape == (WIDTH, *FINE)
    old = FeatureDataset(indexed, "pets", backbone="fake", version="v1", verify=True)
    assert torch.equal(old[0]["clean"], first)
