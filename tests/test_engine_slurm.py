"""Engine `slurm` by submitit's own executors for one machine: the bytes of a local build, whatever happens to a job."""

import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from built import alive, digest_of, is_clean, is_whole, rows, shards, wait_until
from fakes import FakeDecomposer, make_folder
from spawned import Hanging, Saboteur, no_decomposer, noted

from featstore.build import Listener, build_version
from featstore.engines import slurm
from featstore.engines.batch import Batch, Mailbox, beat
from featstore.engines.slurm import SlurmEngine
from featstore.errors import InputError, WorkerError
from featstore.index import index_dataset
from featstore.plan import Request
from featstore.worker import Worker

pytest.importorskip("submitit")
REQUEST = Request("pets", "fake", shard_size=2)
IMAGES = 8
SUPPORT = Path(__file__).parent / "support"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which eight images are indexed as ``pets``."""
    folder = tmp_path_factory.mktemp("made")
    index_dataset(folder / "store", "pets", make_folder(folder / "pets", IMAGES))
    return folder / "store"


@pytest.fixture
def root(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of one's own; jobs find the tests' decomposers."""
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setattr(slurm, "POLL", 0.1)
    return Path(shutil.copytree(made, tmp_path / "store"))


@pytest.fixture(scope="module")
def expected(made: Path) -> dict[str, bytes]:
    """The shards that one process makes of them."""
    alone = Path(shutil.copytree(made, made.parent / "alone"))
    build_version(alone, REQUEST, FakeDecomposer())
    return shards(alone)


def engine(root: Path, make: Any, cluster: str = "local", **options: Any) -> SlurmEngine:
    parameters = {"timeout_min": 5} if cluster == "local" else {}
    return SlurmEngine(Worker("cpu", make), root / ".slurm", cluster, jobs=2, parameters=parameters, **options)


def test_two_jobs_make_the_bytes_of_one_process(root: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "pids").mkdir()
    told: list[int] = []
    said: list[str] = []
    make = partial(noted, tmp_path / "pids", 0.05)
    listener = Listener(advanced=told.append, said=said.append)
    report = build_version(root, REQUEST, FakeDecomposer(), listener, engine=engine(root, make))
    assert (report.computed, report.failed, report.shards, sum(told)) == (IMAGES, 0, 4, IMAGES)
    assert shards(root) == expected
    assert is_clean(root)
    assert [line[:16] for line in said] == ["submitted 2 jobs"]
    pids = [int(path.name) for path in (tmp_path / "pids").iterdir()]
    assert len(pids) == 2
    assert wait_until(lambda: not any(map(alive, pids)), 10)
    assert rows(root, "SELECT count(*) FROM features WHERE seconds IS NOT NULL") == [(IMAGES,)]
    assert not (root / ".slurm").exists()


def test_a_job_that_is_killed_is_given_to_another(root: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    said: list[str] = []
    make = partial(Saboteur, "kill", digest_of(root, "cats/005.png"), tmp_path / "done")
    build_version(root, REQUEST, FakeDecomposer(), Listener(said=said.append), engine=engine(root, make))
    assert shards(root) == expected
    assert is_clean(root)
    assert any("shard-00001.h5 is given to another (try 2 of 3)" in line for line in said), said


def test_a_job_whose_time_is_up_is_queued_again(root: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "pids").mkdir()
    make = partial(noted, tmp_path / "pids", 0.3)
    interrupted: list[int] = []

    def advanced(count: int) -> None:  # as Slurm does before it ends a job: SIGUSR2 to the processes of its step
        pids = [int(path.name) for path in (tmp_path / "pids").iterdir()]
        if not interrupted:
            interrupted.extend(pids)
            for pid in pids:
                os.kill(pid, signal.SIGUSR2)

    said: list[str] = []
    listener = Listener(advanced=advanced, said=said.append)
    build_version(root, REQUEST, FakeDecomposer(), listener, engine=engine(root, make))
    assert shards(root) == expected
    assert is_clean(root)
    assert len(list((tmp_path / "pids").iterdir())) > len(interrupted)
    assert [line[:16] for line in said] == ["submitted 2 jobs"]  # submitit's doing, not a retry of ours


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        (
            "kill",
            r"^shard-00001\.h5 \(.*\) was given up after 2 tries: job \d+ ended without a word, its log",
        ),
        (
            "raise",
            r"^shard-00001\.h5 .* was given up after 2 tries: job \d+ raised RuntimeError: out of memory on the device",
        ),
    ],
)
def test_a_job_that_always_fails_is_one_clear_error(
    root: Path, expected: dict[str, bytes], deed: str, words: str
) -> None:
    make = partial(Saboteur, deed, digest_of(root, "cats/005.png"))
    with pytest.raises(WorkerError, match=words) as caught:
        build_version(root, REQUEST, FakeDecomposer(), engine=engine(root, make, tries=2))
    assert "\n" not in str(caught.value)
    assert is_whole(root)
    assert shards(root).items() <= expected.items()
    assert list((root / ".slurm").rglob("*.err"))  # logs stay where something failed


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (no_decomposer, FileNotFoundError, r"weights\.pth"),
        (partial(FakeDecomposer, scale=2.0), WorkerError, "recipe is not the version's: they differ in method;"),
    ],
)
def test_what_no_job_can_begin_ends_the_build(root: Path, make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        build_version(root, REQUEST, FakeDecomposer(), engine=engine(root, make, cluster="debug"))
    assert shards(root) == {}


def test_jobs_in_this_process_make_the_same(root: Path, expected: dict[str, bytes]) -> None:
    build_version(root, REQUEST, FakeDecomposer(), engine=engine(root, FakeDecomposer, cluster="debug"))
    assert shards(root) == expected
    assert is_clean(root)


@pytest.mark.slow
def test_a_job_that_hangs_ends_itself(root: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    said: list[str] = []
    make = partial(Hanging, digest_of(root, "cats/005.png"), tmp_path / "done")
    build_version(root, REQUEST, FakeDecomposer(), Listener(said=said.append), engine=engine(root, make, timeout=8.0))
    assert any("ended without a word" in line for line in said), said
    assert shards(root) == expected


@pytest.mark.parametrize(("number", "slow"), [(signal.SIGINT, False), (signal.SIGKILL, True)])
def test_no_job_outlives_its_build_for_long(root: Path, tmp_path: Path, number: signal.Signals, slow: bool) -> None:
    folder = tmp_path / "pids"
    folder.mkdir()
    script = [sys.executable, str(SUPPORT / "spawned.py"), str(root), str(folder), "slurm"]
    with subprocess.Popen(script, start_new_session=True, stderr=subprocess.PIPE, text=True) as parent:
        assert wait_until(lambda: len(list(folder.iterdir())) == 2, 60)
        pids = [int(path.name) for path in folder.iterdir()]
        parent.send_signal(number)
        assert parent.wait(20) == (130 if number == signal.SIGINT else -number), parent.stderr and parent.stderr.read()
    assert wait_until(lambda: not any(map(alive, pids)), 15)
    assert is_whole(root) or slow


def test_a_job_that_begins_after_its_build_does_nothing(root: Path, tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path)
    batch = Batch(None, (), mailbox, None)  # type: ignore[arg-type]
    for stale in (False, True):
        if stale:
            mailbox.alive.write_text(str(time.time() - 3600))
        told = batch()
        assert told is not None
        assert "began after the build that wanted it had ended" in str(told[0].error)
    beat(mailbox)
    assert time.time() - float(mailbox.alive.read_text()) < 60


def test_without_slurm_that_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(WorkerError, match=r"there is no Slurm here .*--slurm cluster=local"):
        build_version(root, REQUEST, FakeDecomposer(), engine=engine(root, FakeDecomposer, cluster="slurm"))


def test_without_submitit_the_extra_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match=r'pip install "featstore-dvt\[slurm\]"'):
        build_version(root, REQUEST, FakeDecomposer(), engine=engine(root, FakeDecomposer))
