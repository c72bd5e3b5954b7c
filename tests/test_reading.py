"""Readers of single shards, held against plain h5py and against the numbers that were written."""

import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from featstore.compute import PARTS
from featstore.errors import CorruptError, NotInStoreError
from featstore.reading import ShardPool, ShardReader
from featstore.shard import Failure, ShardHeader, ShardWriter, read_contents

SHAPE = (3, 4, 8)
THREE = ("raw", "clean", "artifact")


def sample(row: int, column: int) -> NDArray[np.float16]:
    return np.random.default_rng((row, column)).standard_normal(SHAPE).astype(np.float16)


def write(path: Path, variants: Sequence[str] = THREE, rows: int = 5, tokens: int = 2) -> Path:
    header = ShardHeader("d", "b", "0" * 64, "{}", tuple(variants), SHAPE[:2], SHAPE[2], tokens, "{}")
    with ShardWriter(path, header, 8) as shard:
        for row in range(rows):
            maps = {name: sample(row, column) for column, name in enumerate(PARTS)}
            prefix = np.full((tokens, SHAPE[2]), row, np.float16) if tokens else None
            shard.add(f"{row}", f"{row}" * 64, maps, prefix, {})
        shard.seal()
    return path


def flip(path: Path, name: str, row: int) -> None:
    with h5py.File(path) as file:
        place = file[name].id.get_chunk_info_by_coord((row, *[0] * (file[name].ndim - 1))).byte_offset
    data = bytearray(path.read_bytes())
    data[place + 9] ^= 1
    path.write_bytes(data)


def test_samples_are_those_that_plain_h5py_reads(tmp_path: Path) -> None:
    reader = ShardReader(write(tmp_path / "s.h5", PARTS))
    assert len(reader) == 5
    with h5py.File(tmp_path / "s.h5") as file:  # open at the same time
        for row in range(5):
            for column, name in enumerate(PARTS):
                found = reader.read(name, row)
                np.testing.assert_array_equal(found, file[name][row])
                np.testing.assert_array_equal(found, sample(row, column))
                assert found.flags.writeable
                assert found.flags.c_contiguous
            np.testing.assert_array_equal(reader.read("prefix_tokens", row), np.full((2, 8), row))
        assert ShardReader(tmp_path / "s.h5").shapes == reader.shapes


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    reader = ShardReader(write(tmp_path / "s.h5", ("raw", "clean"), tokens=0))
    with pytest.raises(NotInStoreError, match=r"s\.h5 holds raw, clean, not artifact"):
        reader.read("artifact", 0)
    with pytest.raises(NotInStoreError, match=r"s\.h5 holds raw, clean, not residual"):
        reader.read("residual", 0)
    with pytest.raises(NotInStoreError, match="not prefix_tokens"):
        reader.read("prefix_tokens", 0)
    for row in (-1, 5):
        with pytest.raises(NotInStoreError, match="rows 0 to 4"):
            reader.read("raw", row)


@pytest.mark.parametrize(("name", "damaged"), [("raw", "raw"), ("artifact", "artifact"), ("residual", "clean")])
def test_verifying_finds_a_flipped_bit_in_a_variant_or_in_a_part_of_the_residual(
    tmp_path: Path, name: str, damaged: str
) -> None:
    flip(write(tmp_path / "s.h5"), damaged, 3)
    reader = ShardReader(tmp_path / "s.h5", verify=True)
    reader.read(name, 2)
    with pytest.raises(CorruptError, match=rf"s\.h5: {damaged} of row 3 is not what was written"):
        reader.read(name, 3)
    ShardReader(tmp_path / "s.h5").read(name, 3)


def test_a_checksum_from_elsewhere_takes_the_shards_own_place(tmp_path: Path) -> None:
    reader = ShardReader(write(tmp_path / "s.h5"))
    digest = hashlib.blake2b(sample(1, 0).tobytes(), digest_size=8).digest()
    reader.read("raw", 1, int.from_bytes(digest, "little"))
    with pytest.raises(CorruptError, match="raw of row 1"):
        reader.read("raw", 1, 17)


def test_a_pickled_reader_has_no_map_and_reads_the_same(tmp_path: Path) -> None:
    reader = ShardReader(write(tmp_path / "s.h5"))
    before = reader.read("raw", 4)
    again = pickle.loads(pickle.dumps(reader))
    assert again.map is None
    np.testing.assert_array_equal(again.read("raw", 4), before)


def test_a_file_cut_short_after_opening_raises_instead_of_killing(tmp_path: Path) -> None:
    reader = ShardReader(write(tmp_path / "s.h5"))
    (tmp_path / "s.h5").write_bytes((tmp_path / "s.h5").read_bytes()[:2000])
    with pytest.raises(CorruptError, match="cut short"):
        reader.read("artifact", 4)
    (tmp_path / "s.h5").write_bytes(b"")
    with pytest.raises(CorruptError, match="cannot be read"):
        reader.read("artifact", 4)


def test_files_that_are_no_shards_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["raw"] = np.zeros(3)
    with pytest.raises(CorruptError, match="not a featstore shard"):
        ShardReader(tmp_path / "foreign.h5")
    with h5py.File(write(tmp_path / "newer.h5"), "a") as file:
        file.attrs["format_version"] = 3
    with pytest.raises(CorruptError, match="newer featstore"):
        ShardReader(tmp_path / "newer.h5")
    with pytest.raises(CorruptError, match="missing: build again"):
        ShardReader(tmp_path / "nowhere.h5")


def test_a_pool_keeps_the_readers_used_last(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{number}.h5", ("raw",), rows=number + 1) for number in range(4)]
    pool = ShardPool(paths, limit=2)
    for number in (0, 1, 0, 2, 3, 0):
        assert len(pool[number]) == number + 1
        assert len(pool.readers) <= 2
    assert list(pool.readers) == [3, 0]
    again = pickle.loads(pickle.dumps(pool))
    np.testing.assert_array_equal(again[3].read("raw", 2), sample(2, 0))


def test_more_failures_than_an_attribute_holds(tmp_path: Path) -> None:
    header = ShardHeader("d", "b", "0" * 64, "{}", ("raw",), SHAPE[:2], SHAPE[2], 0, "{}")
    failures = [Failure(f"{n}.jpg", f"{n}.jpg", f"{n:064x}", "decode", "the file is empty" * 20) for n in range(500)]
    with ShardWriter(tmp_path / "s.h5", header, 0) as shard:
        for failure in failures:
            shard.fail(failure)
        shard.seal()
    assert list(read_contents(tmp_path / "s.h5").failures) == failures
    assert len(ShardReader(tmp_path / "s.h5")) == 0
