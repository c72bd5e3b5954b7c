"""Engine `ray` on a cluster of local nodes: the bytes of a local build, whatever dies on the way."""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from built import alive, digest_of, is_clean, is_whole, rows, shards, wait_until
from fakes import FakeDecomposer, make_folder
from spawned import Hanging, Saboteur, Stalling, no_decomposer, noted

from featstore.build import Listener, build_version
from featstore.engines.ray import RayEngine
from featstore.engines.ray_cluster import capacity, cause, connected
from featstore.errors import InputError, WorkerError
from featstore.index import index_dataset
from featstore.plan import Request
from featstore.worker import Worker

REQUEST = Request("pets", "fake", shard_size=2)
IMAGES = 12
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without a CPU to give and two nodes with one each on this machine, whose workers find the tests' decomposers."""
    pytest.importorskip("ray")
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(Path(__file__).parent / "support"))
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": 0, "include_dashboard": False})
    made.nodes = [made.add_node(**NODE), made.add_node(**NODE)]
    with connected(made.address, lambda line: None):
        yield made
    made.shutdown()
    patch.undo()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which twelve images are indexed as ``pets``."""
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


def test_no_cluster_at_an_address_is_told_at_once(root: Path) -> None:
    engine = RayEngine(Worker("cpu", FakeDecomposer), "127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(WorkerError, match=r"no Ray cluster answers at 127\.0\.0\.1:9: Connection refused"):
        build_version(root, REQUEST, FakeDecomposer(), engine=engine)
    assert time.monotonic() - began < 30


def test_a_node_that_is_killed_costs_no_byte(
    cluster: Any, root: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "pids").mkdir()
    said: list[str] = []
    told: list[int] = []
    gone: list[None] = []
    doomed = cluster.add_node(**NODE)

    def advanced(count: int) -> None:
        told.append(count)
        if not gone:  # the doomed node is in the midst of a shard, else none were made
            gone.append(cluster.remove_node(doomed, allow_graceful=False))

    make = partial(Stalling, tmp_path / "pids", tmp_path / "stalled", doomed.node_id, 3)
    engine = RayEngine(Worker("cpu", make), cluster.address, actors=3)
    report = build_version(
        root, REQUEST, FakeDecomposer(), Listener(advanced=advanced, said=said.append), engine=engine
    )
    assert (report.computed, report.failed, report.shards) == (IMAGES, 0, 6)
    assert sum(told) == IMAGES
    assert shards(root) == expected
    assert is_clean(root)
    assert rows(root, "SELECT count(*) FROM features WHERE seconds IS NOT NULL")[0][0] >= IMAGES - 2
    pids = [int(path.name) for path in (tmp_path / "pids").iterdir()]
    assert len(pids) >= 3
    assert os.getpid() not in pids
    assert wait_until(lambda: not any(map(alive, pids)), 60)
    assert any("is given to another (try 2 of 3)" in line for line in said), said
    assert build_version(root, REQUEST, FakeDecomposer(), engine=engine).present == IMAGES


@pytest.mark.slow
def test_a_node_that_comes_later_takes_part(cluster: Any, root: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "pids").mkdir()
    monkeypatch.setattr("featstore.engines.ray.LOOK", 0.2)
    come: list[Any] = []

    def advanced(count: int) -> None:
        if not come:
            come.append(cluster.add_node(**NODE))

    engine = RayEngine(Worker("cpu", partial(noted, tmp_path / "pids", 1.0)), cluster.address)
    build_version(root, REQUEST, FakeDecomposer(), Listener(advanced=advanced), engine=engine)
    cluster.remove_node(come[0])
    assert len(list((tmp_path / "pids").iterdir())) == 3
    assert is_clean(root)


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        (
            "kill",
            r"^shard-00001\.h5 \(images cats/005.* cats/007.*\) was given up after 2 tries: the actor in .* died",
        ),
        (
            "raise",
            r"^shard-00001\.h5 .* was given up after 2 tries: .* raised RuntimeError: out of memory on the device",
        ),
    ],
)
def test_an_actor_that_always_fails_is_one_clear_error(
    cluster: Any, root: Path, expected: dict[str, bytes], deed: str, words: str
) -> None:
    make = partial(Saboteur, deed, digest_of(root, "cats/005.png"))
    with pytest.raises(WorkerError, match=words) as caught:
        build_version(root, REQUEST, FakeDecomposer(), engine=RayEngine(Worker("cpu", make), cluster.address, tries=2))
    assert "\n" not in str(caught.value)
    assert "the same command goes on from there" in str(caught.value)
    assert is_whole(root)
    assert shards(root).items() <= expected.items()


def test_what_fails_once_is_made_by_another(
    cluster: Any, root: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    make = partial(Saboteur, "kill", digest_of(root, "cats/005.png"), tmp_path / "done")
    build_version(root, REQUEST, FakeDecomposer(), engine=RayEngine(Worker("cpu", make), cluster.address))
    assert shards(root) == expected
    assert is_clean(root)


@pytest.mark.slow
def test_an_actor_that_hangs_is_ended(cluster: Any, root: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    said: list[str] = []
    make = partial(Hanging, digest_of(root, "cats/005.png"), tmp_path / "done")
    engine = RayEngine(Worker("cpu", make), cluster.address, timeout=10.0)
    build_version(root, REQUEST, FakeDecomposer(), Listener(said=said.append), engine=engine)
    assert any("more than 10 seconds (--timeout)" in line for line in said)
    assert shards(root) == expected
    assert is_clean(root)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (no_decomposer, FileNotFoundError, r"weights\.pth"),
        (partial(FakeDecomposer, scale=2.0), WorkerError, "recipe is not the version's: they differ in method;"),
    ],
)
def test_what_no_actor_can_begin_ends_the_build(
    cluster: Any, root: Path, make: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        build_version(root, REQUEST, FakeDecomposer(), engine=RayEngine(Worker("cpu", make), cluster.address))
    assert shards(root) == {}


def test_an_interrupted_build_leaves_no_actor(cluster: Any, root: Path, tmp_path: Path) -> None:
    (tmp_path / "pids").mkdir()

    def interrupt(count: int) -> None:
        raise KeyboardInterrupt

    engine = RayEngine(Worker("cpu", partial(noted, tmp_path / "pids", 0.5)), cluster.address)
    with pytest.raises(KeyboardInterrupt):
        build_version(root, REQUEST, FakeDecomposer(), Listener(advanced=interrupt), engine=engine)
    pids = [int(path.name) for path in (tmp_path / "pids").iterdir()]
    assert wait_until(lambda: not any(map(alive, pids)), 60)
    assert is_whole(root)


def test_room_is_counted_by_node(cluster: Any) -> None:
    import ray

    assert [capacity(ray, cpus, 0) for cpus in (1, 0.5, 2)] == [2, 4, 0]
    assert capacity(ray, 1, 1) == 0


def test_without_ray_the_extra_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'pip install "featstore-dvt\[ray\]"'):
        build_version(root, REQUEST, FakeDecomposer(), engine=RayEngine(Worker("cpu", FakeDecomposer)))


def test_why_an_actor_died_is_told_in_some_words() -> None:
    tale = (
        "The actor died unexpectedly before finishing this task.\n\tclass_name: A\n\tip: 10.0.0.2\n"
        "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: …"
    )
    assert cause(tale) == "worker process has died"
    assert cause("The actor is dead because its node has died. Node Id: 24f") == "node has died"
    assert cause("something else\nand more") == "something else"
