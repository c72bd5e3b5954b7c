"""Files inside tar, Parquet and MATLAB files: the bytes of the same files unpacked, by any thread and behind any URL."""

import gzip
import io
import os
import tarfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from servers import Log, http_server
from shelves import as_files, make_mat, make_parquet, make_tar

from featstore import members
from featstore.errors import DecodeError
from featstore.images import decode, probe
from featstore.masks import read_depth, read_mask
from featstore.members import read_bytes, read_status
from featstore.places import listed, path_of

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

LONG = "a-name-longer-than-a-header-has-room-for/" * 4 + "é.bin"


def random_files(count: int = 40) -> dict[str, bytes]:
    drawn = np.random.default_rng(5)
    return {f"./d/{n:03d}.bin": drawn.bytes(int(drawn.integers(0, 3000))) for n in range(count)} | {LONG: b"long"}


def shelved(path: Path, values: list[bytes], group: int = 7) -> Path:
    return make_parquet(
        path, {"image": as_files(values), "plain bytes": values, "label": list(range(len(values)))}, group
    )


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_every_file_of_a_tar_is_what_was_put_in(tmp_path: Path, form: int) -> None:
    files = random_files()
    tar = make_tar(tmp_path / "a.tar", files, form)
    for name, data in files.items():
        assert read_bytes(f"{tar}::{name}") == data
        assert read_bytes(Path(f"{tar}::{name}")) == data
        assert read_status(f"{tar}::{name}") == (len(data), tar.stat().st_mtime_ns)


def test_links_and_names_that_come_twice_are_as_tar_extracts_them(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for data in (b"old", b"new!"):
            info = tarfile.TarInfo("x")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("y")
        link.type, link.linkname = tarfile.LNKTYPE, "x"
        tar.addfile(link)
    with tarfile.open(tmp_path / "a.tar") as tar:
        tar.extractall(tmp_path / "out", filter="data")
    for name in ("x", "y"):
        assert read_bytes(f"{tmp_path}/a.tar::{name}") == (tmp_path / "out" / name).read_bytes() == b"new!"


def test_threads_read_what_one_reads(tmp_path: Path) -> None:
    files = random_files(200)
    tar = make_tar(tmp_path / "a.tar", files)
    table = shelved(tmp_path / "a.parquet", list(files.values()))
    wanted = [(f"{tar}::{name}", data) for name, data in files.items()]
    wanted += [(f"{table}::{row}/image", data) for row, data in enumerate(files.values())]
    order = np.random.default_rng(0).permutation(len(wanted) * 3) % len(wanted)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: read_bytes(wanted[n][0]), order))
    assert found == [wanted[n][1] for n in order]


@pytest.mark.parametrize("column", ["image", "plain bytes"])
def test_every_row_of_a_parquet_file_is_what_was_put_in(tmp_path: Path, column: str) -> None:
    values = [bytes([n]) * (n + 1) for n in range(30)]
    table = shelved(tmp_path / "a [1]*'.parquet", values)
    for row, value in enumerate(values):
        assert read_bytes(f"{table}::{row}/{column}") == value
        assert read_status(f"{table}::{row}/{column}").st_mtime_ns == table.stat().st_mtime_ns


def test_pixels_of_a_matlab_file_are_upright_and_lossless(tmp_path: Path) -> None:
    arrays = make_mat(tmp_path / "a.mat")
    for number in range(3):
        at = f"{tmp_path}/a.mat::%s/{number}"
        assert np.array_equal(decode(read_bytes(at % "images")), arrays["images"][..., number])
        assert np.array_equal(read_mask(read_bytes(at % "labels")), arrays["labels"][..., number])
        assert np.array_equal(read_mask(read_bytes(at % "instances")), arrays["instances"][..., number])
        depth = read_depth(read_bytes(at % "depths"))
        assert depth.dtype == np.float32
        assert np.array_equal(depth, arrays["depths"][..., number])
        assert (probe(read_bytes(at % "depths")).width, probe(read_bytes(at % "depths")).mode) == (8, "F")
        for name in arrays:
            assert read_status(at % name).st_size == len(read_bytes(at % name))
    # The bytes are decided by this code alone: what was indexed on one machine is the same on another.
    assert read_bytes(f"{tmp_path}/a.mat::images/0").startswith(b"P6\n8 6\n255\n")
    assert read_bytes(f"{tmp_path}/a.mat::labels/0").startswith(b"P5\n8 6\n65535\n")


@pytest.fixture(params=["memory", "s3", "http"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A server's folder with the files of the folder ``here``."""
    monkeypatch.setenv("FEATSTORE_CACHE", str(tmp_path / "cache"))
    here = tmp_path / "here"
    here.mkdir()
    files = random_files(20)
    make_tar(here / "a.tar", files)
    shelved(here / "a.parquet", list(files.values()))
    make_mat(here / "a.mat")
    if request.param == "http":
        with http_server(here, Log()) as address:
            yield path_of(address)
        return
    bucket = request.getfixturevalue("bucket") if request.param == "s3" else f"memory://{uuid.uuid4().hex}"
    for path in here.iterdir():
        (path_of(bucket) / path.name).write_bytes(path.read_bytes())
    yield path_of(bucket)


def test_what_is_behind_a_url_is_read_there(tmp_path: Path, place: Path) -> None:
    names = [f"a.tar::{name}" for name in random_files(20)] + [f"a.parquet::{row}/image" for row in range(20)]
    names += [f"a.mat::{name}/2" for name in ("images", "labels", "depths")]
    with ThreadPoolExecutor(8) as pool:
        there = list(pool.map(lambda name: read_bytes(f"{place}/{name}"), names))
    assert there == [read_bytes(tmp_path / "here" / name) for name in names]
    for name in names[::7]:
        assert read_bytes(listed(place) / name) == read_bytes(place / name)
        assert read_status(f"{place}/{name}").st_size == read_status(f"{tmp_path}/here/{name}").st_size


def test_a_file_on_a_server_that_is_cut_off_or_gone(place: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_bytes(f"{place}/gone.tar::x")
    with pytest.raises(FileNotFoundError):
        read_bytes(f"{place}/gone.parquet::0/image")
    with pytest.raises(FileNotFoundError):
        read_bytes(f"{place}/gone.mat::images/0")
    with pytest.raises(DecodeError, match="no file of this name"):
        read_bytes(f"{place}/a.tar::gone")
    if not str(place).startswith("http"):
        data = (place / "a.parquet").read_bytes()
        (place / "cut.parquet").write_bytes(data[:-20])
        (place / "cut.tar").write_bytes((place / "a.tar").read_bytes()[:5000])
        assert "cut off" in told(f"{place}/cut.parquet::0/image")
        assert "cut.tar" in told(f"{place}/cut.tar::d/039.bin")


def test_a_tar_that_changes_is_looked_through_again(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "a.tar", {"x": b"one", "y": b"two"})
    assert read_bytes(f"{tar}::y") == b"two"
    make_tar(tmp_path / "b.tar", {"y": b"three"}).replace(tar)
    assert read_bytes(f"{tar}::y") == b"three"
    with pytest.raises(DecodeError, match="no file of this name"):
        read_bytes(f"{tar}::x")


def test_files_that_bear_such_names_are_files(tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tar", {"x": b"inside"})
    for name in ("a::b.jpg", "a.tar::x.jpg", "a.tar::x", "b.parquet::0/image"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
        assert read_bytes(str(tmp_path / name)) == name.encode()
        assert read_status(tmp_path / name).st_size == len(name)
    (tmp_path / "a.tar::x").unlink()
    assert read_bytes(f"{tmp_path}/a.tar::x") == b"inside"
    (tmp_path / "d.tar").mkdir()
    (tmp_path / "d.tar" / "::y").write_bytes(b"y")
    assert read_bytes(f"{tmp_path}/d.tar/::y") == b"y"


def test_a_fork_reads_on(tmp_path: Path) -> None:
    files = random_files(10)
    tar = make_tar(tmp_path / "a.tar", files)
    table = shelved(tmp_path / "a.parquet", list(files.values()))
    assert read_bytes(f"{tar}::{LONG}") == read_bytes(f"{table}::10/image") == b"long"
    child = os.fork()
    if not child:
        same = read_bytes(f"{tar}::{LONG}") == read_bytes(f"{table}::10/image") == b"long"
        os._exit(0 if same and read_bytes(f"{table}::0/image") == files["./d/000.bin"] else 1)
    assert os.waitpid(child, 0)[1] == 0


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def told(path: str) -> str:
    """Return the one line that reading ends with; it says what file and what to do."""
    with pytest.raises(DecodeError) as caught:
        read_bytes(path)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 200
    return text


def test_damage_is_told_in_one_line(tmp_path: Path) -> None:
    files = {f"{n}.bin": bytes([n]) * 2000 for n in range(9)}
    tar = cut(make_tar(tmp_path / "a.tar", files), 0.45)
    assert read_bytes(f"{tar}::0.bin") == files["0.bin"]
    assert "a.tar ends in the middle of" in told(f"{tar}::8.bin")
    broken = make_tar(tmp_path / "b.tar", files)
    with broken.open("r+b") as file:
        file.seek(3 * (512 + 2048))
        file.write(b"\xff" * 512)
    assert read_bytes(f"{broken}::2.bin") == files["2.bin"]
    assert "b.tar is damaged after 3 files" in told(f"{broken}::5.bin")
    (tmp_path / "c.tar").write_bytes(b"no tar" * 400)
    assert "c.tar is not a tar file" in told(f"{tmp_path}/c.tar::x")
    (tmp_path / "d.tar").write_bytes(gzip.compress(broken.read_bytes()))
    assert "decompress it (gzip -d)" in told(f"{tmp_path}/d.tar::x")
    table = cut(shelved(tmp_path / "a.parquet", list(files.values())), 0.7)
    assert told(f"{table}::0/image") == "a.parquet is cut off, or no Parquet file: fetch it again"
    shelved(tmp_path / "b.parquet", list(files.values()))
    assert "holds no row 9" in told(f"{tmp_path}/b.parquet::9/image")
    assert "a column label of images" in told(f"{tmp_path}/b.parquet::1/label")
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(128) + b"\0" * 64)
    assert "a.mat is a MATLAB file of version 5: save it with -v7.3" in told(f"{tmp_path}/a.mat::images/0")
    make_mat(tmp_path / "b.mat")
    assert "holds no image images/3" in told(f"{tmp_path}/b.mat::images/3")
    assert "fetch it again" in told(f"{cut(tmp_path / 'b.mat', 0.5)}::images/0")


def test_a_damaged_row_group_leaves_the_others(tmp_path: Path) -> None:
    values = [np.random.default_rng(n).bytes(3000) for n in range(8)]
    table = shelved(tmp_path / "a.parquet", values, group=4)
    whole = parquet.ParquetFile(table).metadata.row_group(1).column(0)
    with table.open("r+b") as file:
        file.seek(whole.data_page_offset)
        file.write(b"\xff" * 64)
    assert read_bytes(f"{table}::1/image") == values[1]
    assert "a.parquet cannot be read as Parquet" in told(f"{table}::5/image")


def test_the_file_around_is_told_for_workers_to_look_for(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "a.tar", {"x": b""})
    assert members.container_of(f"{tar}::x") == str(tar)
    assert members.container_of(str(tmp_path / "x.jpg")) == str(tmp_path / "x.jpg")
    with pytest.raises(FileNotFoundError):
        read_bytes(f"{tmp_path}/gone.tar::x")
