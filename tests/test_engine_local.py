"""Builds by several processes: the same store as by one, whatever happens to them on the way."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from built import alive, digest_of, is_clean, is_whole, rows, shards, wait_until
from fakes import FakeDecomposer, make_folder
from spawned import Hanging, Saboteur, no_decomposer, noted

from featstore.build import Listener, build_version
from featstore.engines import LocalEngine
from featstore.errors import WorkerError
from featstore.index import index_dataset
from featstore.plan import Request
from featstore.run import run_shard
from featstore.worker import Worker

REQUEST = Request("pets", "fake", shard_size=2)
IMAGES = 8
SCRIPT = [sys.executable, str(Path(__file__).parent / "support" / "spawned.py")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which eight images are indexed as ``pets``."""
    folder = tmp_path_factory.mktemp("made")
    index_dataset(folder / "store", "pets", make_folder(folder / "pets", IMAGES))
    return folder / "store"


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return Path(shutil.copytree(made, tmp_path / "store"))


@pytest.fixture(scope="module")
def expected(made: Path) -> dict[str, bytes]:
    """The shards that one process makes of them."""
    alone = Path(shutil.copytree(made, made.parent / "alone"))
    build_version(alone, REQUEST, FakeDecomposer())
    return shards(alone)


def crew(*makes: Callable[[], FakeDecomposer], timeout: float | None = None) -> LocalEngine:
    return LocalEngine([Worker("cpu", make) for make in makes], timeout)


def test_two_processes_make_the_bytes_of_one_and_tell_of_every_image(
    root: Path, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    (tmp_path / "pids").mkdir()
    monkeypatch.setattr("featstore.engines.local.run_shard", pytest.fail)
    make = partial(noted, tmp_path / "pids", 0.05)
    report = build_version(root, REQUEST, FakeDecomposer(), Listener(advanced=told.append), engine=crew(make, make))
    assert (report.computed, report.failed, report.shards) == (IMAGES, 0, 4)
    assert report.bytes == sum(map(len, expected.values()))
    assert sum(told) == IMAGES
    assert shards(root) == expected
    assert is_clean(root)
    pids = [int(path.name) for path in (tmp_path / "pids").iterdir()]
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert not any(map(alive, pids))
    assert rows(root, "SELECT count(*) FROM features WHERE seconds IS NOT NULL") == [(IMAGES,)]
    monkeypatch.setattr("featstore.engines.local.get_context", pytest.fail)  # nothing to do starts no process
    assert build_version(root, REQUEST, FakeDecomposer(), engine=crew(make, make)).present == IMAGES


def test_one_worker_is_no_process_of_its_own(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def note(*arguments: object) -> object:
        made.append(str(arguments[0]))
        return run_shard(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("featstore.engines.local.run_shard", note)
    decomposer = FakeDecomposer()
    build_version(root, REQUEST, decomposer, engine=crew(no_decomposer))
    assert (len(made), sum(decomposer.calls)) == (4, IMAGES)


def test_a_poisoned_image_fails_alone(root: Path) -> None:
    make = partial(FakeDecomposer, poison=digest_of(root, "dogs/000.png"))
    report = build_version(root, REQUEST, FakeDecomposer(), engine=crew(make, make))
    assert (report.computed, report.failed) == (IMAGES - 1, 1)
    found = rows(root, "SELECT image_id, step, error FROM failures")
    assert found == [("dogs/000.png", "features", "the views do not determine the solution")]


@pytest.mark.parametrize(
    ("deed", "error", "words"),
    [
        ("kill", WorkerError, r"worker \d of 2 \(cpu\) was killed by SIGKILL.*the same command goes on"),
        ("exit", WorkerError, r"worker \d of 2 \(cpu\) ended with code 7.*the same command goes on"),
        ("raise", RuntimeError, "^out of memory on the device"),
        ("odd", WorkerError, "^OddError: left and right"),
    ],
)
def test_what_ends_a_worker_is_told_and_the_next_build_ends_the_same(
    root: Path, expected: dict[str, bytes], tmp_path: Path, deed: str, error: type[Exception], words: str
) -> None:
    make = partial(Saboteur, deed, digest_of(root, "cats/005.png"), tmp_path / "done", pause=0.02)
    with pytest.raises(error, match=words) as caught:
        build_version(root, REQUEST, FakeDecomposer(), engine=crew(make, make))
    assert "\n" not in str(caught.value)
    assert (deed in ("raise", "odd")) == ("decompose" in "".join(getattr(caught.value, "__notes__", [])))
    assert is_whole(root)
    assert shards(root).items() <= expected.items()
    build_version(root, REQUEST, FakeDecomposer(), engine=crew(make, make))
    assert shards(root) == expected
    assert rows(root, "SELECT count(*), count(DISTINCT sha256) FROM features") == [(IMAGES, IMAGES)]
    assert is_clean(root)


def test_a_gap_between_sealed_shards_is_filled_with_the_same_bytes(root: Path, expected: dict[str, bytes]) -> None:
    build_version(root, REQUEST, FakeDecomposer())
    (root / list(expected)[1]).unlink()
    build_version(root, REQUEST, FakeDecomposer(), engine=crew(FakeDecomposer, FakeDecomposer))
    assert shards(root) == expected


@pytest.mark.parametrize("count", [1, 2])
def test_a_worker_that_hangs_is_ended_where_a_limit_is_given(
    root: Path, expected: dict[str, bytes], tmp_path: Path, count: int
) -> None:
    make = partial(Hanging, digest_of(root, "cats/005.png"), tmp_path / "done")
    with pytest.raises(
        WorkerError, match=r"worker \d of \d \(cpu\) was at one shard.*more than 3 seconds \(--timeout\)"
    ):
        build_version(root, REQUEST, FakeDecomposer(), engine=crew(*[make] * count, timeout=3.0))
    assert is_whole(root)
    build_version(root, REQUEST, FakeDecomposer(), engine=crew(*[make] * count, timeout=30.0))
    assert shards(root) == expected


def test_a_decomposer_that_cannot_be_made_is_told(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"weights\.pth"):
        build_version(root, REQUEST, FakeDecomposer(), engine=crew(no_decomposer, no_decomposer))


def test_a_worker_of_another_recipe_makes_nothing(root: Path) -> None:
    other = partial(FakeDecomposer, scale=2.0)
    with pytest.raises(WorkerError, match=r"recipe is not the version's: they differ in method;"):
        build_version(root, REQUEST, FakeDecomposer(), engine=crew(other, other))
    assert shards(root) == {}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_no_worker_outlives_its_parent(
    root: Path, expected: dict[str, bytes], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    folder = tmp_path / "pids"
    folder.mkdir()
    with subprocess.Popen(
        [*SCRIPT, str(root), str(folder)], start_new_session=True, stderr=subprocess.PIPE, text=True
    ) as parent:
        assert wait_until(lambda: len(list(folder.iterdir())) == 2, 60)
        pids = [int(path.name) for path in folder.iterdir()]
        time.sleep(0.3)
        if number == signal.SIGINT:
            os.killpg(parent.pid, number)  # as a terminal does: to the workers as well
        else:
            parent.kill()
        assert parent.wait(20) == code, parent.stderr and parent.stderr.read()
        assert wait_until(lambda: not any(map(alive, pids)), 60)
        assert parent.stderr is not None
        assert parent.stderr.read() == ""
    build_version(root, REQUEST, FakeDecomposer())
    assert shards(root) == expected
    assert is_clean(root)
