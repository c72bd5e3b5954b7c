"""Filters of chunks: HDF5 with its own plugins reads what is written past it, and the other way round."""

import subprocess
import sys
import threading
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
from fakes import FakeDecomposer, expected_clean, make_folder
from numpy.typing import NDArray

from featstore import filters
from featstore.build import build_version
from featstore.chunks import Chunks
from featstore.dataset import FeatureDataset
from featstore.errors import CorruptError, InputError, NotInStoreError
from featstore.images import decode
from featstore.index import index_dataset
from featstore.plan import Request, make_plan
from featstore.reading import ShardReader
from featstore.shard import ShardHeader, ShardWriter
from featstore.versions import describe_version

GRID, WIDTH = (7, 5), 16
VARIANTS = ("raw", "clean")
PACKED = filters.CODECS[1:]


def smooth(row: int, column: int) -> NDArray[np.float16]:
    steps = np.random.default_rng((row, column)).normal(0, 0.01, (*GRID, WIDTH))
    return (1 + steps.cumsum(axis=0)).astype(np.float16)


def write(path: Path, codec: str, store: str = "float16", rows: int = 3) -> Path:
    header = ShardHeader("d", "b", "0" * 64, "{}", VARIANTS, GRID, WIDTH, 2, "{}", store=store, codec=codec)
    with ShardWriter(path, header, rows + 2) as shard:
        for row in range(rows):
            maps = {name: smooth(row, column) for column, name in enumerate(VARIANTS)}
            shard.add(f"{row}", f"{row}" * 64, maps, np.full((2, WIDTH), row, np.float16), {})
        shard.seal()
    return path


@pytest.mark.parametrize("codec", filters.CODECS)
def test_hdf5_with_its_own_plugins_reads_the_same_numbers(tmp_path: Path, codec: str) -> None:
    reader = ShardReader(write(tmp_path / "s.h5", codec), verify=True)
    with h5py.File(tmp_path / "s.h5") as file:
        assert file.attrs["codec"] == codec
        assert file["raw"].chunks == (1, *GRID, WIDTH)
        for row in range(3):
            for column, name in enumerate(VARIANTS):
                np.testing.assert_array_equal(file[name][row], smooth(row, column))
                found = reader.read(name, row)
                np.testing.assert_array_equal(found, smooth(row, column))
                assert found.dtype == np.float16
                assert found.flags.writeable
            np.testing.assert_array_equal(reader.read("prefix_tokens", row), file["prefix_tokens"][row])
    into = np.empty((*GRID, WIDTH), np.float16)
    reader.read_into(into, "clean", 2)
    np.testing.assert_array_equal(into, smooth(2, 1))
    window = (slice(2, 5), slice(1, 4))
    np.testing.assert_array_equal(reader.read("raw", 1, window=window), smooth(1, 0)[window])
    reader.prefetch("raw", 1, window)
    assert all(chunks.offsets is not None for chunks in reader.chunks.values())


@pytest.mark.parametrize("codec", PACKED)
@pytest.mark.parametrize("dtype", ["<f2", "i1", "<f4"])
def test_what_hdf5_compresses_itself_is_read_past_it(tmp_path: Path, codec: str, dtype: str) -> None:
    values = np.random.default_rng(1).integers(-3, 4, (2, 19, 13, 16)).cumsum(axis=1).astype(dtype)
    with h5py.File(tmp_path / "s.h5", "w") as file:
        made = file.create_dataset("x", data=values, chunks=(1, 19, 13, 16), **filters.options(codec))
        chunks = Chunks.of(made)
        theirs = made.id.read_direct_chunk((1, 0, 0, 0))[1]
    data = (tmp_path / "s.h5").read_bytes()
    place = chunks.place(1)
    assert place is not None
    np.testing.assert_array_equal(chunks.sample(data, *place), values[1])
    encode = filters.encoder(codec)
    assert encode is not None
    ours = encode(values[1])
    assert abs(len(ours) - len(theirs)) <= 16
    if codec == "gzip":  # one zlib; the others are two copies of a library, which may differ by a version
        assert ours == theirs


@pytest.mark.parametrize("codec", PACKED)
def test_the_same_values_give_the_same_bytes_in_any_thread(codec: str) -> None:
    values = (
        np.random.default_rng(0).normal(0, 1, (64, 64, 96)).cumsum(axis=0).astype(np.float16)
    )  # several Blosc blocks
    encode = filters.encoder(codec)
    assert encode is not None
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(encode(values))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {encode(values) for _ in range(4)} | set(found) == {found[0]}


@pytest.mark.parametrize("codec", PACKED)
def test_filters_make_smooth_features_smaller(tmp_path: Path, codec: str) -> None:
    assert (
        write(tmp_path / "s.h5", codec, rows=40).stat().st_size
        < write(tmp_path / "n.h5", "none", rows=40).stat().st_size
    )


@pytest.mark.parametrize("codec", PACKED)
def test_a_flipped_bit_is_corrupt_or_seen_by_the_checksum(tmp_path: Path, codec: str) -> None:
    path = write(tmp_path / "s.h5", codec)
    place = ShardReader(path).chunks["clean"].place(1)
    assert place is not None
    for offset in np.linspace(0, place[1] - 1, 24).astype(int):
        data = bytearray(path.read_bytes())
        data[place[0] + offset] ^= 0x10
        (tmp_path / "d.h5").write_bytes(data)
        reader = ShardReader(tmp_path / "d.h5", verify=True)
        try:
            np.testing.assert_array_equal(reader.read("clean", 1), smooth(1, 1))  # a bit that the format does not use
        except CorruptError as error:
            assert "clean of row 1" in str(error)  # noqa: PT017
        np.testing.assert_array_equal(reader.read("clean", 2), smooth(2, 1))


def test_filters_that_only_hdf5_knows_are_left_to_it(tmp_path: Path) -> None:
    path = write(tmp_path / "s.h5", "none")
    other = hdf5plugin.BZip2()
    with h5py.File(path, "a") as file:
        values = file["clean"][:]
        del file["clean"]
        file.create_dataset("clean", data=values, chunks=(1, *GRID, WIDTH), **other)
    reader = ShardReader(path, verify=True)
    assert reader.chunks["clean"].place(0) is None
    assert reader.chunks["raw"].place(0) is not None
    np.testing.assert_array_equal(reader.read("clean", 1), smooth(1, 1))


WITHOUT = """
import sys
sys.modules.update({name: None for name in ("hdf5plugin", "numcodecs", "numcodecs.zstd", "numcodecs.blosc")})
from pathlib import Path
from featstore.errors import FeatstoreError
from featstore.filters import require
from featstore.images import decode
from featstore.index import index_dataset
from featstore.plan import Request, make_plan
from featstore.reading import ShardReader
for do in (lambda: ShardReader(Path(sys.argv[1])).read("clean", 0), lambda: require(sys.argv[2])):
    try:
        do()
        print("fine")
    except FeatstoreError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.parametrize("codec", PACKED)
def test_what_is_not_installed_is_named_in_one_line(tmp_path: Path, codec: str) -> None:
    path = write(tmp_path / "s.h5", codec)
    run = subprocess.run([sys.executable, "-c", WITHOUT, str(path), codec], capture_output=True, text=True, check=True)
    if codec == "gzip":
        assert run.stdout.split() == ["fine", "fine"]
        return
    read, written = run.stdout.splitlines()
    assert read.startswith(f"NotInStoreError {path} has chunks with HDF5 filter 320")
    assert written.startswith(f"InputError {codec} needs the packages of an extra")
    assert all('pip install "featstore-dvt[compress]"' in line for line in (read, written))


@pytest.mark.slow
def test_a_version_may_hold_shards_of_several_filters_and_each_is_made_alike_again(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "pets", 8)
    for root in (tmp_path / "a", tmp_path / "b"):
        index_dataset(root, "pets", source)
        for count, codec in enumerate(filters.CODECS, 1):
            request = Request("pets", "fake", limit=2 * count, codec=codec)
            assert make_plan(root, request, FakeDecomposer()).bytes_to_write == 2 * (4 * 20 + 1) * 8 * 2
            report = build_version(root, request, FakeDecomposer())
            assert (report.version, report.computed, report.present) == ("v1", 2, 2 * count - 2)
    one, other = (sorted(root.rglob("*.h5")) for root in (tmp_path / "a", tmp_path / "b"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
    listed = describe_version(tmp_path / "a", "v1")["shards"]
    assert [shard["codec"] for shard in listed] == list(filters.CODECS)
    data = FeatureDataset(tmp_path / "a", "pets", backbone="fake", variants=("clean",), verify=True)
    for item, path in zip(data, sorted(source.rglob("*.png")), strict=True):
        expected = expected_clean(decode(path.read_bytes())).astype(np.float16)
        np.testing.assert_array_equal(item["clean"].permute(1, 2, 0).numpy(), expected)


def test_an_unknown_codec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no filter 'brotli': choose from none, gzip, lz4, zstd"):
        write(tmp_path / "s.h5", "brotli")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NotInStoreError, match="rows 0 to 2"):
        ShardReader(write(tmp_path / "s.h5", "gzip")).read("raw", 3)
