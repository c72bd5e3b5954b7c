"""Kills, flipped bits, full and vanished disks, jumping clocks, crowds: nothing is lost, nothing damaged goes unseen."""

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import FakeDecomposer, make_folder
from planted_damage import change, flip, place_of, shards
from tinystore import call

from featstore import manifest
from featstore.build import Listener, build_version
from featstore.errors import LockedError, SourceError, StoreError
from featstore.index import index_dataset
from featstore.listed import features_of, listed_shards
from featstore.plan import Request
from featstore.reading import ShardReader
from featstore.root import build_lock
from featstore.verify import check_shard, verify_store

REQUEST = Request("pets", "fake", shard_size=3)
SUPPORT = Path(__file__).parent / "support"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store in which twelve images are indexed."""
    index_dataset(tmp_path / "store", "pets", make_folder(tmp_path / "pets", 12))
    return tmp_path / "store"


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in shards(root)}


def count(root: Path, sql: str) -> int:
    with manifest.reading(root) as connection:
        return int(connection.execute(sql).fetchall()[0][0])


def undisturbed(root: Path, versions: int = 1) -> dict[str, bytes]:
    """What builds that nobody disturbs write."""
    other = root.with_name("undisturbed")
    shutil.copytree(root, other)
    for number in range(versions):
        build_version(other, REQUEST, FakeDecomposer(1.0 + number))
    return contents(other)


def killed(root: Path, kills: int, longest: float, *words: str) -> dict[str, int]:
    """Kill builds at random moments, and finish what they left."""
    fresh = root.with_name("fresh")
    shutil.copytree(root, fresh)
    script = [sys.executable, str(SUPPORT / "crasher.py"), str(root), "5", str(kills), str(longest), *words]
    ended = subprocess.run(script, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    said = ended.stdout.split()
    told = dict(zip(said[::2], map(int, said[1::2]), strict=True))
    assert contents(root) == undisturbed(fresh, told["finished"] + 1)
    report = verify_store(root)
    assert report.damage == []
    assert set(report.counts) <= {"leftover"}
    versions = told["finished"] + 1
    lost = versions * 12 - count(root, "SELECT count(*) FROM features")
    print(f"{told['kills']} kills, {versions} builds: lost {lost}, damage seen on the way {told['damage']}")
    assert (lost, told["damage"]) == (0, 0)
    assert count(root, "SELECT count(*) FROM failures") == 0
    return told


def test_builds_killed_at_random_moments_lose_nothing(root: Path) -> None:
    assert killed(root, 8, 0.8)["kills"] == 8


@pytest.mark.slow
def test_fifty_kills_and_every_store_between_them_is_whole(root: Path) -> None:
    assert killed(root, 50, 1.5, "verify")["kills"] == 50


def found_in(root: Path, name: str) -> bool:
    """Whether the check of a shard sees damage."""
    with manifest.reading(root) as connection:
        (listed,) = [shard for shard in listed_shards(connection) if shard.path == name]
    rows = features_of(root, [listed.shard_id])[listed.shard_id]
    return any(finding.damage for finding in check_shard(root, listed, rows))


def flips(root: Path, number: int, aimed: int, seed: int) -> Iterator[tuple[str, int]]:
    """Turn single bits over: uniformly over all bytes, then at the trailer, the tables and the metadata; undone each time."""
    generator = random.Random(seed)
    paths = shards(root)
    sizes = [path.stat().st_size for path in paths]
    places = []
    for _ in range(number):
        place = generator.randrange(sum(sizes))
        for path, size in zip(paths, sizes, strict=True):
            if place < size:
                places.append((path, place))
                break
            place -= size
    first, last = place_of(paths[0], "raw", 0), place_of(paths[0], "residual", 2)
    spans = [(0, first), (last, sizes[0] - 83), (sizes[0] - 83, sizes[0])]
    places += [(paths[0], generator.randrange(*spans[index % 3])) for index in range(aimed)]
    for path, place in places:
        bit = generator.randrange(8)
        flip(path, place, bit)
        yield path.relative_to(root).as_posix(), place
        flip(path, place, bit)


def test_every_flipped_bit_is_found(root: Path) -> None:
    build_version(root, REQUEST, FakeDecomposer())
    tried = [(name, place, found_in(root, name)) for name, place in flips(root, 12, 9, seed=1)]
    assert [entry for entry in tried if not entry[2]] == []
    assert verify_store(root).findings == ()


@pytest.mark.slow
def test_two_hundred_flipped_bits_are_found_by_the_whole_verification(root: Path) -> None:
    build_version(root, REQUEST, FakeDecomposer())
    tried = [bool(verify_store(root).damage) for _ in flips(root, 200, 60, seed=2)]
    print(f"{len(tried)} flips: undetected {tried.count(False)}")
    assert all(tried)


FULL = """
import resource, signal, sys
from pathlib import Path
from fakes import FakeDecomposer
from featstore.build import build_version
from featstore.errors import FeatstoreError
from featstore.plan import Request
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
if sys.argv[2] != "0":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    build_version(Path(sys.argv[1]), Request("pets", "fake", shard_size=3), FakeDecomposer(), force=True)
except FeatstoreError as error:
    print(type(error).__name__, error)
"""


def build_limited(root: Path, limit: int = 0) -> str:
    command = [sys.executable, "-c", FULL, str(root), str(limit)]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(SUPPORT)}
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("limit", [20_000, 300_000])
def test_a_limit_on_files_is_told_in_one_line_and_the_build_goes_on_without_it(root: Path, limit: int) -> None:
    """A limit stands for a full disk: the smaller one stops shards, the larger the manifest, if anything."""
    expected = undisturbed(root)
    said = build_limited(root, limit)
    assert said.count("\n") <= 1
    if said:
        assert said.startswith("StoreError cannot write"), said
    assert build_limited(root) == ""
    assert contents(root) == expected
    assert verify_store(root).findings == ()


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MiB."""
    place = tmp_path / "mount"
    place.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(place)], check=False).returncode
    ):
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


def test_a_full_disk_is_told_and_the_build_goes_on_when_there_is_room(root: Path, mount: Path) -> None:
    expected = undisturbed(root)
    shutil.copytree(root, mount / "store")
    for room in (600_000, 60_000, 0):
        (mount / "ballast").write_bytes(b"\0" * max(0, shutil.disk_usage(mount).free - room))
        said = build_limited(mount / "store")
        assert said.startswith("StoreError cannot write"), said
        assert said.count("\n") == 1
        (mount / "ballast").unlink()
    assert build_limited(mount / "store") == ""
    assert contents(mount / "store") == expected
    assert verify_store(mount / "store").findings == ()


def test_a_store_that_can_only_be_read_is_read(root: Path, mount: Path) -> None:
    build_version(root, REQUEST, FakeDecomposer())
    shutil.copytree(root, mount / "store")
    remount(mount, "ro")
    assert verify_store(mount / "store").findings == ()
    for command in (
        ("verify", "--repair"),
        ("manifest", "rebuild"),
        ("index", "pets"),
        ("tag", "pets/fake", "v1", "best"),
    ):
        said = call(*command, "--root", mount / "store")
        assert (said.code, said.err.count("\n")) == (1, 1), (command, said)
        assert "read-only" in said.err.lower(), (command, said)
    with pytest.raises(StoreError, match="read-only"):
        build_version(mount / "store", REQUEST, FakeDecomposer())


def test_images_whose_disk_goes_stop_the_build_and_it_goes_on_with_the_same_bytes(root: Path, tmp_path: Path) -> None:
    expected = undisturbed(root)
    source = tmp_path / "pets"

    def vanish(done: int) -> None:
        if source.exists() and len(shards(root)) == 1:
            source.rename(tmp_path / "away")

    with pytest.raises(SourceError, match=r"is gone: the same command goes on once it is back"):
        build_version(root, REQUEST, FakeDecomposer(batch_size=1, pause=0.05), Listener(advanced=vanish))
    assert count(root, "SELECT count(*) FROM failures") == 0
    (tmp_path / "away").rename(source)
    build_version(root, REQUEST, FakeDecomposer())
    assert contents(root) == expected


def test_a_store_whose_disk_goes_is_not_begun_anew_in_its_place(root: Path, tmp_path: Path) -> None:
    expected = undisturbed(root)

    def vanish(done: int) -> None:
        if root.exists() and len(shards(root)) == 1:
            root.rename(tmp_path / "away")
            root.mkdir()

    with pytest.raises(StoreError, match=r"cannot write|is gone"):
        build_version(root, REQUEST, FakeDecomposer(batch_size=1, pause=0.05), Listener(advanced=vanish))
    assert [path for path in root.rglob("*") if path.is_file()] == []
    shutil.rmtree(root)
    (tmp_path / "away").rename(root)
    build_version(root, REQUEST, FakeDecomposer())
    assert contents(root) == expected
    assert verify_store(root).findings == ()


def test_nothing_depends_on_the_clock(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = undisturbed(root)
    real, honest = time.time, manifest.now
    for days in (-4000, 9000, 0):
        monkeypatch.setattr(time, "time", lambda days=days: real() + days * 86_400)
        monkeypatch.setattr(manifest, "now", lambda days=days: honest().replace(year=2026 + days // 365))
        build_version(root, Request("pets", "fake", limit=6 + (days == 0) * 6, shard_size=3), FakeDecomposer())
        build_version(root, Request("pets", "fake", limit=3, shard_size=3), FakeDecomposer(5.0 + days))
        make_folder(tmp_path / "pets" / f"more{days}", 1, seed=days % 97)
        index_dataset(root, "pets", None)
        assert verify_store(root).findings == ()
        shutil.rmtree(tmp_path / "pets" / f"more{days}")
        index_dataset(root, "pets", None)
    assert expected.items() <= contents(root).items()


def test_a_second_build_names_the_first_and_may_wait_for_it(root: Path) -> None:
    worker = [sys.executable, str(SUPPORT / "build_worker.py"), str(root)]
    with subprocess.Popen(worker, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        deadline = time.monotonic() + 60
        while not shards(root) and time.monotonic() < deadline:
            time.sleep(0.01)
        if other.poll() is None:
            with pytest.raises(LockedError, match=rf"process {other.pid} on \S+ \(build_worker.py .*\) is building"):
                build_version(root, REQUEST, FakeDecomposer())
        assert build_version(root, REQUEST, FakeDecomposer(), wait=60).computed == 0


def test_a_reader_beside_a_build_sees_whole_shards_alone(root: Path) -> None:
    done = threading.Event()
    read: list[int] = []
    wrong: list[str] = []

    def read_all() -> None:
        while not done.is_set():
            for path in shards(root):
                try:
                    reader = ShardReader(path, verify=True)
                    read.extend(int(reader.read("raw", row).size) for row in range(len(reader)))
                except Exception as error:
                    wrong.append(str(error))

    thread = threading.Thread(target=read_all)
    thread.start()
    try:
        for scale in (1.0, 2.0):
            build_version(root, REQUEST, FakeDecomposer(scale, pause=0.02))
    finally:
        done.set()
        thread.join()
    assert wrong == []
    assert len(read) > 12


COMMANDS = [
    ("index", "pets"),
    ("build", "pets", "--weights", "random", "--backbone", "test_vit"),
    ("query", "pets", "SELECT 1"),
    ("ls",),
    ("show", "pets/fake/v1"),
    ("verify",),
    ("verify", "--repair"),
    ("manifest", "rebuild"),
    ("tag", "pets/fake", "v1", "best"),
    ("rm", "pets/fake/v1"),
    ("gc",),
    ("diff", "pets/fake/v1", "pets/fake/v1"),
    ("croissant", "pets/fake/v1"),
    ("export", "pets/fake/v1", "--format", "npy", "--output", "nowhere"),
    ("train", "pets", "--backbone", "test_vit"),
    ("denoise", "pets/fake/v1"),
]


def test_a_manifest_of_a_newer_featstore_is_refused_by_every_command(root: Path) -> None:
    build_version(root, Request("pets", "fake", limit=3), FakeDecomposer())
    change(root, "INSERT INTO schema_migrations VALUES (9999, 'from the future', now())")
    before = (root / "manifest.duckdb").read_bytes()
    for command in COMMANDS:
        said = call(*command, "--root", root)
        assert (said.code, said.err.count("\n")) == (1, 1), (command, said)
        assert "upgrade featstore" in said.err, (command, said)
    assert (root / "manifest.duckdb").read_bytes() == before


def test_json_of_a_verification_is_one_value(root: Path) -> None:
    assert json.loads(call("verify", "--json", "--root", root).out)["ok"] is True
    with build_lock(root):
        assert call("verify", "--root", root).code == 0  # reads beside a build
