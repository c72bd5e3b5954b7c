import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import h5py
import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

from featstore.errors import CorruptError, InputError
from featstore.quantise import checksum, quantise
from featstore.sealing import sealed, sweep, write_text
from featstore.shard import Failure, ShardContents, ShardHeader, ShardWriter, read_contents

RECIPE = '{"format":1}'
DIGEST = hashlib.sha256(RECIPE.encode()).hexdigest()
HEADER = ShardHeader("pets", "tiny", DIGEST, RECIPE, ("raw", "clean", "artifact", "residual"), (3, 4), 8, 2, "{}")
FAILURE = Failure("b ü.jpg", "/b ü.jpg", "1" * 64, "decode", "the file is empty")


class Parts:
    """A decomposition of random numbers."""

    stats: dict[str, float] = {}  # noqa: RUF012
    prefix = None

    def __init__(self, seed: int = 0, scale: float = 1.0) -> None:
        generator = np.random.default_rng(seed)
        self.raw, self.clean, self.artifact = (
            generator.standard_normal((3, 4, 8)).astype(np.float32) * np.float32(scale) for _ in range(3)
        )


def write(path: Path, count: int = 3, capacity: int = 5, header: ShardHeader = HEADER) -> ShardContents:
    with ShardWriter(path, header, capacity) as shard:
        for number in range(count):
            prefix = np.full((2, 8), number, np.float16)
            maps = quantise(Parts(number), header.variants)
            shard.add(f"ü {number}.jpg", f"{number}" * 64, maps, prefix, {"norm_max": number} if number else {})
        shard.fail(FAILURE)
        return shard.seal()


def test_what_goes_in_comes_out_through_plain_h5py(tmp_path: Path) -> None:
    contents = write(tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5") as file:
        for number in range(3):
            maps = quantise(Parts(number), HEADER.variants)
            for column, name in enumerate(HEADER.variants):
                np.testing.assert_array_equal(file[name][number], maps[name])
                data = np.asarray(file[name][number], "<f2").tobytes()
                expected = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
                assert file["checksum"][number, column] == expected
        assert file["raw"].chunks == (1, 3, 4, 8)
        assert [dimension.label for dimension in file["raw"].dims] == ["sample", "row", "column", "channel"]
        assert file["prefix_tokens"][:, 0, 0].tolist() == [0, 1, 2]
        assert file["image_id"].asstr()[:].tolist() == ["ü 0.jpg", "ü 1.jpg", "ü 2.jpg"]
    back = read_contents(tmp_path / "s.h5")
    assert (back.header, back.image_ids, back.sha256s, back.failures) == (
        HEADER,
        contents.image_ids,
        contents.sha256s,
        (FAILURE,),
    )
    assert back.bytes == contents.bytes == (tmp_path / "s.h5").stat().st_size
    np.testing.assert_array_equal(back.checksums, contents.checksums)
    np.testing.assert_array_equal(back.stats["norm_max"], np.array([np.nan, 1, 2], np.float32))


def test_the_last_line_is_the_digest_of_all_before_it(tmp_path: Path) -> None:
    contents = write(tmp_path / "s.h5")
    data = (tmp_path / "s.h5").read_bytes()
    body, line = data[:-83], data[-83:].decode()
    assert line == f"featstore blake2b {hashlib.blake2b(body, digest_size=32).hexdigest()}\n"
    assert contents.digest == read_contents(tmp_path / "s.h5").digest == line[18:-1]
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["prefix_tokens"].shape == (3, 2, 8)
        tokens = np.asarray(file["prefix_tokens"][2], "<f2").tobytes()
        assert file["checksum_prefix"][2] == int.from_bytes(hashlib.blake2b(tokens, digest_size=8).digest(), "little")
    (tmp_path / "bare.h5").write_bytes(body)  # HDF5 alone sees no difference; featstore does
    with h5py.File(tmp_path / "bare.h5") as file:
        assert file["image_id"].shape == (3,)
    with pytest.raises(CorruptError, match="does not end as a sealed shard does"):
        read_contents(tmp_path / "bare.h5")


@pytest.mark.skipif(shutil.which("b2sum") is None, reason="b2sum (coreutils) is not installed")
def test_coreutils_take_the_same_digest(tmp_path: Path) -> None:
    contents = write(tmp_path / "s.h5")
    shell = f"head -c -83 '{tmp_path}/s.h5' | b2sum -l 256"
    told = subprocess.run(["sh", "-c", shell], check=True, capture_output=True, text=True).stdout
    assert told.split()[0] == contents.digest


def test_a_shard_of_format_1_is_read_as_ever(tmp_path: Path) -> None:
    write(tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5", "a") as file:  # HDF5 takes the trailer away as it closes
        file.attrs["format_version"] = 1
        del file["checksum_prefix"]
    contents = read_contents(tmp_path / "s.h5")
    assert (contents.digest, contents.prefix_checksums, len(contents.image_ids)) == (None, None, 3)


def describe(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"attributes": {}, "datasets": {}}
    with h5py.File(path) as file:
        for name, value in file.attrs.items():
            found["attributes"][name] = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value

        def note(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                filters = item.id.get_create_plist().get_nfilters()
                entry = {"shape": list(item.shape), "dtype": str(item.dtype), "filters": filters}
                found["datasets"][name] = entry | {"chunks": list(item.chunks or ())}

        file.visititems(note)
    return found


def test_a_shard_is_as_its_schema_says(tmp_path: Path) -> None:
    write(tmp_path / "s.h5")
    schema = json.loads((files("featstore.schemas") / "shard.schema.json").read_text(encoding="utf-8"))
    found = describe(tmp_path / "s.h5")
    jsonschema.validate(found, schema)
    found["datasets"]["raw"]["dtype"] = "float32"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(found, schema)


def test_the_same_content_is_the_same_file(tmp_path: Path) -> None:
    write(tmp_path / "a.h5")
    time.sleep(1.1)  # HDF5 keeps times to the second
    write(tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_shard_without_samples_keeps_its_failures(tmp_path: Path) -> None:
    write(tmp_path / "s.h5", count=0)
    assert read_contents(tmp_path / "s.h5").failures == (FAILURE,)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0, 1e4])
def test_the_parts_add_up_within_half_a_unit_of_the_residual(scale: float) -> None:
    maps = {name: value.astype(np.float64) for name, value in quantise(Parts(5, scale), HEADER.variants).items()}
    left = np.abs(maps["raw"] - maps["clean"] - maps["artifact"] - maps["residual"])
    unit = np.spacing(np.abs(maps["residual"]).astype(np.float16)).astype(np.float64)
    assert (left <= unit / 2 + 1e-7 * scale).all()


def test_what_float16_cannot_hold_is_refused() -> None:
    parts = Parts()
    parts.raw[0, 0, 0] = 7e4
    with pytest.raises(InputError, match="does not fit float16"):
        quantise(parts, ("raw",))
    parts.raw[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="does not fit float16"):
        quantise(parts, ("raw",))


def test_only_what_is_there_can_be_stored(tmp_path: Path) -> None:
    parts = Parts()
    parts.clean = None  # type: ignore[assignment]
    with pytest.raises(InputError, match="no residual"):
        quantise(parts, ("raw", "residual"))
    wrong: NDArray[np.float16] = np.zeros((1, 1, 8), np.float16)
    with pytest.raises(InputError, match="this shard holds"), ShardWriter(tmp_path / "s.h5", HEADER, 1) as shard:
        shard.add("a", "0" * 64, dict.fromkeys(HEADER.variants, wrong), None, {})
    assert list(tmp_path.iterdir()) == []


def test_leaving_without_sealing_leaves_nothing(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "s.h5", HEADER, 1):
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 10, 500, 5000, -100, -1])
def test_a_file_cut_short_is_not_a_shard(tmp_path: Path, keep: int) -> None:
    write(tmp_path / "s.h5")
    data = (tmp_path / "s.h5").read_bytes()
    (tmp_path / "s.h5").write_bytes(data[:keep])
    with pytest.raises(CorruptError, match=r"s\.h5") as caught:
        read_contents(tmp_path / "s.h5")
    assert "\n" not in str(caught.value)


def test_foreign_newer_and_missing_files_are_told_apart(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["raw"] = np.zeros(3)
    with pytest.raises(CorruptError, match="not a featstore shard"):
        read_contents(tmp_path / "foreign.h5")
    write(tmp_path / "newer.h5")
    with h5py.File(tmp_path / "newer.h5", "a") as file:
        file.attrs["format_version"] = 3
    with pytest.raises(CorruptError, match="newer featstore"):
        read_contents(tmp_path / "newer.h5")
    with pytest.raises(CorruptError, match="missing"):
        read_contents(tmp_path / "nowhere.h5")


def test_a_killed_writer_leaves_a_temporary_file_that_the_next_build_sweeps(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from featstore.sealing import sealed\n"
        "with sealed(Path(sys.argv[1])) as path:\n"
        "    path.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "file")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    assert len(sweep(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_living_writers_file_is_not_swept(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from featstore.sealing import sealed\n"
        "with sealed(Path(sys.argv[1])) as path:\n"
        "    path.write_bytes(b'whole'); print('half', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "file")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        other.stdout.readline()
        assert sweep(tmp_path) == []
        other.stdin.close()
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_an_error_keeps_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    with pytest.raises(RuntimeError), sealed(tmp_path / "file") as path:
        path.write_text("new")
        raise RuntimeError
    assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


def test_checksum_depends_on_every_bit() -> None:
    sample = np.zeros((2, 2, 2), np.float16)
    sums = {checksum(sample)}
    for bit in range(sample.nbytes * 8):
        flipped = bytearray(sample.tobytes())
        flipped[bit // 8] ^= 1 << bit % 8
        sums.add(checksum(np.frombuffer(bytes(flipped), np.float16)))
    assert len(sums) == sample.nbytes * 8 + 1
