"""Reading samples from a store behind a URL: by parts, through a bounded cache, in any process."""

import fcntl
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import FakeDecomposer, make_folder
from servers import Log, http_server
from torch.utils.data import DataLoader

from featstore import FeatureDataset, transport
from featstore.build import build_version
from featstore.cache import Cache, cache_size
from featstore.errors import CorruptError, InputError, NotInStoreError, RemoteError, StoreError
from featstore.index import index_dataset
from featstore.places import as_remote
from featstore.plan import Request
from featstore.ranges import RangeFile
from featstore.reading import ShardReader
from featstore.root import resolve_root

SAMPLES = 24


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store on a disk, to read, of two shards with samples that weigh more than their tables."""
    folder = tmp_path_factory.mktemp("made")
    index_dataset(folder / "plain", "pets", make_folder(folder / "pets", count=SAMPLES))
    decomposer = FakeDecomposer(fine_grid=(60, 70))
    build_version(folder / "plain", Request("pets", "fake", shard_size=12), decomposer)
    return folder / "plain"


@pytest.fixture
def remote(bucket: str, plain: Path) -> Path:
    """The same store in a bucket, copied with what is not ours."""
    import boto3

    for path in plain.rglob("*"):
        if path.is_file():
            key = f"store/{path.relative_to(plain).as_posix()}"
            boto3.client("s3").upload_file(str(path), bucket.removeprefix("s3://"), key)
    return resolve_root(f"{bucket}/store")


def opened(root: Path, **options: object) -> FeatureDataset:
    return FeatureDataset(root, "pets", backbone="fake", variants=("clean_fine", "residual"), **options)  # type: ignore[arg-type]


def same(left: FeatureDataset, right: FeatureDataset) -> None:
    assert len(left) == len(right) == SAMPLES
    for mine, theirs in zip(left, right, strict=True):
        assert mine["image_id"] == theirs["image_id"]
        assert all(torch.equal(mine[name], theirs[name]) for name in ("clean_fine", "residual"))


def test_every_sample_is_that_of_the_disk(remote: Path, plain: Path) -> None:
    same(opened(remote, verify=True), opened(plain))
    same(opened(remote), opened(plain))


def test_one_sample_is_one_part_of_the_shard(remote: Path, plain: Path, s3_log: Log) -> None:
    shard = next(plain.rglob("shard-00000.h5"))
    sample = 60 * 70 * 8 * 2
    reader = ShardReader(remote / shard.relative_to(plain).as_posix())
    s3_log.clear()
    expected = ShardReader(shard)
    np.testing.assert_array_equal(reader.read("clean_fine", 5), expected.read("clean_fine", 5))
    assert [(one.status, one.sent) for one in s3_log.of("GET")] == [(206, sample)]
    reader.read("clean_fine", 5)
    assert len(s3_log.asked) == 1
    s3_log.clear()
    data = opened(remote)
    data[3]
    assert s3_log.sent("shard-00000.h5") < shard.stat().st_size / 3  # tables, and two maps of one sample
    # Another process finds tables and sample in the cache: it asks whether the shard is still the same, and no more.
    s3_log.clear()
    again = opened(remote)
    again[3]
    assert not s3_log.of("GET", ".h5")
    assert len(s3_log.of("HEAD", ".h5")) <= 2


def test_a_batch_is_asked_for_at_once(remote: Path, plain: Path, s3_log: Log) -> None:
    data, expected = opened(remote), opened(plain)
    data[0], data[23]
    s3_log.clear()
    items = data.__getitems__([1, 2, 13, 14])
    assert len(s3_log.of("GET", ".h5")) == 8
    for place, item in zip([1, 2, 13, 14], items, strict=True):
        assert torch.equal(item["clean_fine"], expected[place]["clean_fine"])
    s3_log.clear()
    data.__getitems__([1, 2, 13, 14])
    assert not s3_log.asked


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_read_what_one_process_reads(start: str, remote: Path, plain: Path) -> None:
    data = opened(remote)
    data[0]  # a connection is open by now, which must not be the workers'
    loader = DataLoader(data, batch_size=4, num_workers=2, multiprocessing_context=start)
    read = torch.cat([batch["clean_fine"] for batch in loader])
    assert torch.equal(read, torch.stack([item["clean_fine"] for item in opened(plain)]))
    same(data, opened(plain))


def taken(folder: Path) -> int:
    with (folder / "taken").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # nobody writes while it is weighed
        found = [path for path in folder.rglob("*") if path.name != "taken"]
        return sum(path.stat().st_size for path in found if path.is_file())


def test_the_cache_keeps_to_its_bound(
    remote: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATSTORE_CACHE_SIZE", "400kB")
    data, expected = opened(remote), opened(plain)
    for place in range(SAMPLES):
        assert torch.equal(data[place]["clean_fine"], expected[place]["clean_fine"])
        assert taken(tmp_path / "cache" / "blocks") <= 400_000
    assert taken(tmp_path / "cache" / "blocks") > 200_000
    monkeypatch.setenv("FEATSTORE_CACHE_SIZE", "0")
    same(opened(remote), expected)


def hammer(folder: str, seed: int) -> int:
    cache, largest = Cache(Path(folder), 50_000), 0
    for number in np.random.default_rng(seed).integers(0, 40, 120).tolist():
        data = bytes([number]) * (1000 + 137 * number)
        found = cache.get(str(number), len(data))
        assert found in (None, data)
        if found is None:
            cache.put(str(number), data)
        largest = max(largest, taken(Path(folder)))
    return largest


def test_many_processes_share_a_cache_that_stays_whole_and_bounded(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        largest = list(pool.map(hammer, [str(tmp_path)] * 4, range(4)))
    assert 25_000 < max(largest) <= 50_000


def test_threads_share_it_too_and_the_longest_unused_goes_first(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(lambda seed: hammer(str(tmp_path), seed), range(4))) <= 50_000
    cache = Cache(tmp_path / "order", 1000)
    cache.folder.mkdir()
    for key in "abcd":
        cache.put(key, bytes(240))
        os.utime(cache.path(key), (1000 + ord(key), 1000 + ord(key)))
    cache.get("a", 240)  # used now
    cache.put("e", bytes(240))
    assert [key for key in "abcde" if cache.get(key, 240)] == ["a", "d", "e"]


def test_a_cache_that_cannot_be_written_forgets_and_fails_nothing(remote: Path, tmp_path: Path) -> None:
    blocks = tmp_path / "cache" / "blocks"
    data = opened(remote)
    data[0]
    for path in blocks.rglob("*"):
        if path.is_file():
            path.write_bytes(b"cut")  # as a full disk leaves it
    (blocks / "taken").unlink()
    (blocks / "taken").mkdir()
    assert len(list(opened(remote, verify=True))) == SAMPLES


def test_damage_in_the_cache_is_fetched_again(remote: Path, plain: Path, tmp_path: Path) -> None:
    opened(remote)[0]
    for path in (tmp_path / "cache" / "blocks").rglob("*"):
        if path.is_file() and path.stat().st_size == 60 * 70 * 8 * 2:
            path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(opened(remote, verify=True)[0]["clean_fine"], opened(plain)[0]["clean_fine"])


@pytest.mark.parametrize(
    ("text", "size"), [("", 10**10), ("0", 0), ("20GB", 2 * 10**10), ("1.5 GiB", 3 * 2**29), ("7", 7)]
)
def test_sizes_of_the_cache(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATSTORE_CACHE_SIZE", text)
    assert cache_size() == size


def test_what_is_no_size_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATSTORE_CACHE_SIZE", "much")
    with pytest.raises(InputError, match="20GB"):
        cache_size()


@pytest.mark.slow
def test_short_answers_missing_shards_and_lost_servers_are_told_apart(
    remote: Path, plain: Path, s3_log: Log, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    monkeypatch.setattr(transport, "PAUSE", 0.001)
    monkeypatch.setattr(transport, "TRIES", 2)
    name = next(plain.rglob("shard-00001.h5")).relative_to(plain).as_posix()
    data = opened(remote)
    data[20]
    s3_log.trouble = lambda method, path: "503"
    with pytest.raises(RemoteError, match="cannot be reached"):
        data[21]
    with pytest.raises(RemoteError, match="cannot be reached"):
        ShardReader(remote / name)
    s3_log.trouble = lambda method, path: ""
    whole = (plain / name).read_bytes()
    client, where = boto3.client("s3"), {"Bucket": bucket.removeprefix("s3://"), "Key": f"store/{name}"}
    client.put_object(Body=whole[: len(whole) // 2], **where)
    with pytest.raises(CorruptError):
        data[22], data[23]
    with pytest.raises(CorruptError):
        ShardReader(remote / name).read("clean_fine", 11)
    client.delete_object(**where)
    with pytest.raises(CorruptError, match="is missing: build again"):
        ShardReader(remote / name)
    with pytest.raises(NotInStoreError, match="no store at"):
        opened(remote / "nowhere")


def test_a_shard_that_was_made_again_is_not_read_from_the_cache(remote: Path, plain: Path) -> None:
    shard = next(remote.rglob("shard-00000.h5"))
    before = ShardReader(shard).read("clean_fine", 0)
    shard.write_bytes(next(plain.rglob("shard-00001.h5")).read_bytes())
    assert not np.array_equal(ShardReader(shard).read("clean_fine", 0), before)


def test_over_http_and_where_a_server_knows_no_ranges(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATSTORE_CACHE", str(tmp_path / "cache"))
    log = Log()
    with http_server(plain.parent, log) as url:
        root = resolve_root(f"{url}/plain")
        data = opened(root)
        data[0]
        assert {one.status for one in log.of("GET", ".h5")} == {206}
        same(data, opened(plain))
    with http_server(plain.parent, Log(), ranges=False) as url, pytest.raises(StoreError, match="knows ranges"):
        opened(resolve_root(f"{url}/plain"))[0]


def test_a_range_file_reads_as_a_file_does(remote: Path, plain: Path) -> None:
    near = next(plain.rglob("shard-00000.h5"))
    far = as_remote(remote / near.relative_to(plain).as_posix())
    assert far is not None
    whole, generator = near.read_bytes(), np.random.default_rng(0)
    with RangeFile(far) as file:
        for _ in range(40):
            start, length = generator.integers(0, len(whole) + 100), generator.integers(0, 200_000)
            assert file.seek(int(start)) == start
            assert file.read(int(length)) == whole[start : start + length]
        file.seek(-50, 2)
        assert file.read() == whole[-50:]


def test_torch_and_credentials_are_not_needed_to_import(tmp_path: Path) -> None:
    code = "import featstore.root, featstore.reading, sys; assert not {'s3fs', 'aiohttp', 'torch'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
