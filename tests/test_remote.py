"""One suite for every kind of place: a store behind a URL is the store on a disk, byte for byte."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from bad_images import make_voc
from fakes import FakeDecomposer, make_folder
from servers import Log, http_server
from sftp import sftp_server
from tinystore import call, done

from featstore import lease, transport
from featstore.build import build_version
from featstore.errors import LockedError, RemoteError, SourceError, StoreError
from featstore.index import index_dataset
from featstore.manifest import reading
from featstore.places import as_remote, path_of
from featstore.plan import Request
from featstore.query import restricted
from featstore.root import build_lock, resolve_root

REQUEST = Request("pets", "fake", shard_size=4)
STORED_NUMBERS = "SELECT image_id, sha256, shard, shard_row, heldout_r2 FROM stored ORDER BY 1"
STORED = "SELECT * EXCLUDE (seconds) FROM stored ORDER BY image_id"


@pytest.fixture(params=["local", "memory", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store's root that does not exist yet."""
    monkeypatch.setenv("FEATSTORE_CACHE", str(tmp_path / "cache"))
    if request.param == "s3":
        return resolve_root(f"{request.getfixturevalue('bucket')}/some/store")
    return resolve_root(tmp_path / "store" if request.param == "local" else f"memory://{uuid.uuid4().hex}/store")


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """The same store on a disk, made with nothing of this suite's."""
    index_dataset(tmp_path / "plain", "pets", make_folder(tmp_path / "pets"))
    build_version(tmp_path / "plain", REQUEST, FakeDecomposer())
    return tmp_path / "plain"


def shards(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.h5"))}


def rows(root: Path, sql: str = STORED) -> list[tuple[Any, ...]]:
    with restricted(root) as connection:
        return connection.execute(sql).fetchall()


def test_the_store_is_the_one_that_a_disk_holds(root: Path, plain: Path, tmp_path: Path) -> None:
    report = index_dataset(root, "pets", tmp_path / "pets")
    assert (report.images, report.hashed, report.problems) == (6, 6, ())
    assert index_dataset(root, "pets", None).hashed == 0
    assert build_version(root, REQUEST, FakeDecomposer()).computed == 6
    assert shards(root) == shards(plain)
    assert rows(root) == rows(plain)
    again = FakeDecomposer()
    report2 = build_version(root, REQUEST, again)
    assert (report2.version, report2.computed, report2.present, again.calls) == ("v1", 0, 6, [])
    left = {path.name for path in root.rglob("*")} if as_remote(root) else set()
    assert not [name for name in left if name.startswith(".")]  # neither locks nor what was being written


def test_a_build_that_was_killed_goes_on_to_the_same_bytes(bucket: str, plain: Path, tmp_path: Path) -> None:
    root = resolve_root(f"{bucket}/store")
    index_dataset(root, "pets", tmp_path / "pets")
    worker = Path(__file__).parent / "support" / "build_worker.py"
    path = os.pathsep.join([str(worker.parent)])
    with subprocess.Popen([sys.executable, str(worker), str(root)], env=os.environ | {"PYTHONPATH": path}) as process:
        deadline = time.monotonic() + 60
        while not shards(root) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert 1 <= len(shards(root)) <= 2
    build_version(root, Request("pets", "fake", shard_size=3), FakeDecomposer())
    index_dataset(tmp_path / "other", "pets", tmp_path / "pets")
    build_version(tmp_path / "other", Request("pets", "fake", shard_size=3), FakeDecomposer())
    assert shards(root) == shards(tmp_path / "other")
    assert rows(root) == rows(tmp_path / "other")


def records(root: Path) -> list[tuple[Any, ...]]:
    told = "image_id, path, sha256, bytes, width, height, mode, part, split, splits, label, mask_path, instance_path"
    return [*rows(root, f"SELECT {told} FROM images ORDER BY 1"), *rows(root, "SELECT * FROM objects ORDER BY ALL")]


def put(folder: Path, url: str) -> None:
    """Copy a folder to a bucket with boto3."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    for path in folder.rglob("*"):
        if path.is_file():
            boto3.client("s3").upload_file(str(path), bucket, f"{key}/{path.relative_to(folder).as_posix()}")


@pytest.fixture(params=["s3", "http"])
def source(request: pytest.FixtureRequest, bucket: str, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder to fill, and the URL under which its files are once ``put`` is called."""
    folder = tmp_path / "images"
    folder.mkdir()
    if request.param == "s3":
        yield folder, f"{bucket}/images"
        return
    with http_server(tmp_path, Log()) as url:
        yield folder, f"{url}/images"


@pytest.mark.parametrize("layout", ["folder", "voc"])
def test_images_behind_a_url_are_those_of_a_folder(layout: str, source: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = source
    if layout == "voc":
        make_voc(folder, ("VOC2007", "VOC2012"), images=4)
    else:
        make_folder(folder / "train")
        (folder / "a cat, 100% #1?.png").write_bytes((folder / "train" / "cats" / "001.png").read_bytes()[:-1] + b"x")
        (folder / ".hidden.png").write_bytes(b"no")
    (folder / "broken.jpg").write_bytes(b"not an image")
    if url.startswith("s3"):
        put(folder, url)
    near = index_dataset(tmp_path / "near", "x", folder)
    far = index_dataset(tmp_path / "far", "x", path_of(url))
    assert (far.layout, far.images, far.hashed) == (layout, near.images, near.hashed)
    assert {problem.path for problem in far.problems} == {problem.path for problem in near.problems}
    assert records(tmp_path / "far") == records(tmp_path / "near")
    assert index_dataset(tmp_path / "far", "x", None).hashed == len([p for p in far.problems if p.step == "image"])
    build_version(tmp_path / "near", Request("x", "fake"), FakeDecomposer())
    build_version(tmp_path / "far", Request("x", "fake"), FakeDecomposer())
    assert shards(tmp_path / "far") == shards(tmp_path / "near")


def test_a_file_of_the_same_size_written_in_the_same_second_has_changed(bucket: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets", count=2)
    put(folder, f"{bucket}/pets")
    index_dataset(tmp_path / "store", "pets", path_of(f"{bucket}/pets"))
    changed = folder / "cats" / "001.png"
    data = changed.read_bytes()
    changed.write_bytes(data[:-20] + bytes(reversed(data[-20:])))
    put(folder / "cats", f"{bucket}/pets/cats")
    report = index_dataset(tmp_path / "store", "pets", None)
    assert (report.hashed, report.changed) == (1, 1)


def test_indexing_again_asks_for_listings_alone(bucket: str, s3_log: Log, tmp_path: Path) -> None:
    put(make_folder(tmp_path / "pets", count=8), f"{bucket}/pets")
    index_dataset(tmp_path / "store", "pets", path_of(f"{bucket}/pets"))
    s3_log.clear()
    index_dataset(tmp_path / "store", "pets", None)
    assert len(s3_log.asked) <= 2
    put(make_voc(tmp_path / "voc", ("VOC2007",), images=4).folder, f"{bucket}/voc")
    index_dataset(tmp_path / "store", "voc", path_of(f"{bucket}/voc"))
    assert len(s3_log.of("GET", ".png")) == 4
    s3_log.clear()
    index_dataset(tmp_path / "store", "voc", None)
    assert not s3_log.of("GET", ".png")


def test_what_is_missing_or_read_only_is_one_clear_line(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no folder s3://"):
        index_dataset(tmp_path / "store", "x", path_of(f"{bucket}/nowhere"))
    with pytest.raises(StoreError, match="no such bucket"):
        index_dataset(resolve_root("s3://no-such-bucket-anywhere/store"), "x", make_folder(tmp_path / "pets"))
    with http_server(tmp_path, Log()) as url, pytest.raises(StoreError, match="can only be read"):
        index_dataset(resolve_root(f"{url}/store"), "x", tmp_path / "pets")
    assert "no store at" in call("ls", "--root", f"{bucket}/nothing").err


def test_a_second_build_names_who_holds_the_store(root: Path, tmp_path: Path) -> None:
    index_dataset(root, "pets", make_folder(tmp_path / "pets"))
    with build_lock(root), pytest.raises(LockedError, match=rf"process {os.getpid()} on .* is building in .*--wait"):
        build_version(root, REQUEST, FakeDecomposer())
    assert build_version(root, REQUEST, FakeDecomposer()).computed == 6


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_the_lock_of_the_dead_is_taken_and_that_of_the_living_is_not(
    where: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = resolve_root(f"{bucket}/store")
    index_dataset(root, "pets", make_folder(tmp_path / "pets"))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    entry = {
        "nonce": "n",
        "beat": 1,
        "pid": gone.pid,
        "host": "far",
        "command": "featstore build",
        "machine": lease.machine(),
    }
    if where == "elsewhere":
        entry |= {"machine": "another", "pid": os.getpid()}
        monkeypatch.setattr(lease, "STALE", 1.5)
    lock = root / ".build.lock"
    lock.write_bytes(json.dumps(entry).encode())
    assert build_version(root, REQUEST, FakeDecomposer()).computed == 6
    assert not lock.exists()
    if where == "here":
        return

    def beat() -> None:
        for number in range(12):
            lock.write_bytes(json.dumps(entry | {"beat": number}).encode())
            time.sleep(0.25)

    beats = ThreadPoolExecutor(1).submit(beat)
    time.sleep(0.1)
    with pytest.raises(LockedError, match=r"on far \(featstore build\)"):
        build_version(root, REQUEST, FakeDecomposer())
    beats.result()


def test_of_many_that_take_a_dead_lock_one_has_it(bucket: str) -> None:
    root = resolve_root(f"{bucket}/store")
    dead = {"nonce": "n", "beat": 1, "pid": 2**22 + 1, "host": "h", "command": "c", "machine": lease.machine()}
    path = as_remote(root / "lock")
    assert path is not None
    path.write_bytes(json.dumps(dead).encode())
    entries = [dead | {"nonce": f"taker {number}"} for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        took = list(pool.map(lambda entry: lease.take_over(path, dead, entry), entries))
    assert sum(took) == 1
    assert lease.read(path) == entries[took.index(True)]


def test_no_update_is_lost_where_many_write_the_manifest(root: Path, tmp_path: Path) -> None:
    if as_remote(root) is None:
        pytest.skip("DuckDB's own lock lets one process in, not one thread")
    folders = [make_folder(tmp_path / f"pets{number}", count=2, seed=number) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda folder: index_dataset(root, folder.name, folder), folders))
    assert rows(root, "SELECT dataset FROM datasets ORDER BY 1") == [(f"pets{number}",) for number in range(4)]


@pytest.mark.slow
def test_a_connection_that_fails_now_and_then_is_tried_again(
    bucket: str, s3_log: Log, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "PAUSE", 0.01)
    count = iter(range(10**6))
    s3_log.trouble = lambda method, path: "503" if next(count) % 7 == 3 else ""
    root = resolve_root(f"{bucket}/store")
    index_dataset(root, "pets", tmp_path / "pets")
    build_version(root, REQUEST, FakeDecomposer())
    assert shards(root) == shards(plain)


def test_a_lost_connection_is_one_line_and_the_build_goes_on_from_the_last_shard(
    bucket: str, s3_log: Log, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "PAUSE", 0.001)
    monkeypatch.setattr(transport, "TRIES", 2)
    root = resolve_root(f"{bucket}/store")
    index_dataset(root, "pets", tmp_path / "pets")
    s3_log.trouble = lambda method, path: "503" if method == "PUT" and path.endswith("00001.h5") else ""
    with pytest.raises(RemoteError, match=r"shard-00001.h5 cannot be reached: .*goes on from there") as told:
        build_version(root, REQUEST, FakeDecomposer())
    assert "\n" not in str(told.value)
    s3_log.trouble = lambda method, path: ""
    assert build_version(root, REQUEST, FakeDecomposer()).computed == 2
    assert shards(root) == shards(plain)


SECRET = "open-sesame"


def test_no_secret_is_written_or_said(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, said = f"{bucket}/store", []
    put(make_folder(tmp_path / "pets"), f"{bucket}/pets")
    said.append(done("index", "pets", "--source", f"{bucket}/pets", "--root", root))
    build_version(resolve_root(root), REQUEST, FakeDecomposer())
    for refused in (f"s3://testing:{SECRET}@b/store", f"https://h/store?sig={SECRET}", f"sftp://u:{SECRET}@h/store"):
        for option in ("--root", "--source"):
            said.append(call("index", "pets", option, refused))
            assert said[-1].code == 1
            assert "credentials belong in the environment" in said[-1].err
    monkeypatch.setattr(transport, "TRIES", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    said.append(call("ls", "--root", "s3://lost/store"))
    assert said[-1].err.count("\n") == 1
    assert not [one for one in said if SECRET in one.out + one.err]
    monkeypatch.undo()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 6
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_no_secret_is_in_a_remote_store(bucket: str, tmp_path: Path) -> None:
    root = resolve_root(f"{bucket}/store")
    index_dataset(root, "pets", make_folder(tmp_path / "pets"))
    build_version(root, REQUEST, FakeDecomposer())
    found = list(root.rglob("*"))
    assert len(found) >= 4
    assert not [path for path in found if SECRET.encode() in path.read_bytes()]


@pytest.mark.slow
def test_the_command_line_as_a_user_types_it(bucket: str, tmp_path: Path) -> None:
    put(make_folder(tmp_path / "pets"), f"{bucket}/pets")
    root = ("--root", f"{bucket}/store")
    model = (
        "--backbone",
        "test_vit",
        "--weights",
        "random",
        "--input-size",
        "64",
        "--device",
        "cpu",
        "--method",
        "raw",
    )
    assert "6 images" in done("build", "pets", "--source", f"{bucket}/pets", *model, *root).out
    assert f'FeatureDataset("{bucket}/store", "pets"' in done("build", "pets", *model, *root).out
    assert "pets/test_vit/v1" in done("ls", *root).out
    assert f"{bucket}/store/pets/test_vit" in done("show", "v1", *root).out
    answer = f"{bucket}/answers/classes.csv"
    done("query", "pets", "SELECT label, count(*) AS n FROM stored GROUP BY 1 ORDER BY 1", "--output", answer, *root)
    done(
        "query", "pets", "SELECT image_id FROM stored", "--output", f"{bucket}/a.parquet", "--format", "parquet", *root
    )
    assert path_of(f"{bucket}/a.parquet").read_bytes()[:4] == b"PAR1"
    assert "cats" in path_of(answer).read_text()
    told = call("train", "pets", "--backbone", "test_vit", *root)
    assert told.code == 1
    assert "local" in told.err


def test_a_store_can_be_read_over_http(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATSTORE_CACHE", str(tmp_path / "cache"))
    with http_server(tmp_path, Log()) as url:
        root = resolve_root(f"{url}/plain")
        assert rows(root) == rows(plain)
        assert shards(root) == shards(plain)
        assert "pets/fake/v1" in done("ls", "--root", root).out
        with reading(root) as connection:
            assert connection.execute("SELECT count(*) FROM features").fetchall() == [(6,)]
        with pytest.raises(StoreError, match="can only be read"):
            build_version(root, REQUEST, FakeDecomposer(scale=2.0))


def test_a_store_over_ssh(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec.config

    monkeypatch.setenv("FEATSTORE_CACHE", str(tmp_path / "cache"))
    with sftp_server("sesame") as port:
        # The password stands where fsspec reads its settings, as in ~/.config/fsspec; keys of the agent need none.
        known = {"password": "sesame", "look_for_keys": False, "allow_agent": False}
        monkeypatch.setitem(fsspec.config.conf, "sftp", known)
        base = f"sftp://tester@127.0.0.1:{port}{tmp_path}"
        root = resolve_root(f"{base}/far/store")
        assert index_dataset(root, "pets", path_of(f"{base}/pets")).hashed == 6
        assert index_dataset(root, "pets", None).hashed == 0
        with build_lock(root), pytest.raises(LockedError, match="is building in sftp://"):
            build_version(root, REQUEST, FakeDecomposer())
        assert build_version(root, REQUEST, FakeDecomposer()).computed == 6
        assert build_version(root, REQUEST, FakeDecomposer()).computed == 0
        assert shards(root) == shards(plain)
        assert rows(root, STORED_NUMBERS) == rows(plain, STORED_NUMBERS)
        near = tmp_path / "far" / "store"
        assert [path.name for path in near.rglob(".*")] == [".index"]  # no lock, nothing half-written
        assert not [path for path in near.rglob("*") if path.is_file() and b"sesame" in path.read_bytes()]
