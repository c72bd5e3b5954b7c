"""Building with a plain numpy decomposer: what is stored, and that nothing is done twice, lost or mixed up."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from fakes import FakeDecomposer, Maps, expected_artifact, expected_clean, make_folder

from featstore.build import Listener, build_version
from featstore.errors import InputError, LockedError, NotInStoreError, QueryError, StoreError
from featstore.images import decode
from featstore.index import index_dataset
from featstore.manifest import reading
from featstore.plan import Request, make_plan
from featstore.query import restricted
from featstore.root import build_lock

REQUEST = Request("pets", "fake", shard_size=4)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store in which six images are indexed as ``pets``."""
    index_dataset(tmp_path / "store", "pets", make_folder(tmp_path / "pets"))
    return tmp_path / "store"


def rows(root: Path, sql: str) -> list[tuple[object, ...]]:
    with reading(root) as connection:
        return connection.execute(sql).fetchall()


def shards(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.h5"))}


def test_what_is_stored_is_what_was_computed(root: Path, tmp_path: Path) -> None:
    report = build_version(root, REQUEST, FakeDecomposer())
    assert (report.version, report.wanted, report.computed, report.present, report.failed) == ("v1", 6, 6, 0, 0)
    found = rows(root, "SELECT image_id, path, shard, shard_row, heldout_r2, seconds FROM stored ORDER BY image_id")
    assert len(found) == 6
    assert [row[3] for row in found] == [0, 1, 2, 3, 0, 1]
    for image_id, path, shard, row, quality, seconds in found:
        image = decode((tmp_path / "pets" / str(path)).read_bytes())
        with h5py.File(root / str(shard)) as file:
            assert file["image_id"].asstr()[row] == image_id
            clean, artifact = file["clean"][row], file["artifact"][row]
            total = clean.astype(np.float32) + artifact + file["residual"][row]
            np.testing.assert_allclose(total, file["raw"][row], atol=2e-4)
        np.testing.assert_array_equal(clean, expected_clean(image).astype(np.float16))
        np.testing.assert_array_equal(artifact, expected_artifact().astype(np.float16))
        assert quality == 0.5
        assert seconds is not None


def test_the_same_command_again_computes_nothing(root: Path) -> None:
    build_version(root, REQUEST, FakeDecomposer())
    before, decomposer = shards(root), FakeDecomposer()
    report = build_version(root, REQUEST, decomposer)
    assert (report.version, report.computed, report.present, decomposer.calls) == ("v1", 0, 6, [])
    assert shards(root) == before


def test_a_changed_parameter_makes_a_new_version_beside_the_old(root: Path) -> None:
    first = build_version(root, REQUEST, FakeDecomposer())
    before = shards(root)
    second = build_version(root, REQUEST, FakeDecomposer(scale=2.0))
    assert (second.version, second.computed) == ("v2", 6)
    assert first.folder != second.folder
    assert before.items() <= shards(root).items()
    assert json.loads((Path(second.folder) / "recipe.json").read_text())["method"]["scale"] == 2.0
    assert rows(root, "SELECT version FROM latest") == [("v2",)]


def test_where_and_limit_choose_images_and_the_rest_follows_later(root: Path) -> None:
    request = Request("pets", "fake", where="label = 'cats'", limit=2)
    assert build_version(root, request, FakeDecomposer()).computed == 2
    assert {row[0] for row in rows(root, "SELECT label FROM stored")} == {"cats"}
    report = build_version(root, REQUEST, FakeDecomposer())
    assert (report.present, report.computed) == (2, 4)
    assert rows(root, "SELECT stored, images FROM coverage") == [(6, 6)]


def test_the_same_bytes_elsewhere_are_not_computed_again(root: Path, tmp_path: Path) -> None:
    build_version(root, REQUEST, FakeDecomposer())
    shutil.copytree(tmp_path / "pets", tmp_path / "moved")
    make_folder(tmp_path / "moved" / "new", count=1, seed=9)
    index_dataset(root, "others", tmp_path / "moved")
    decomposer = FakeDecomposer()
    report = build_version(root, Request("others", "fake"), decomposer)
    assert (report.wanted, report.present, report.computed, decomposer.calls) == (7, 6, 1, [1])
    assert rows(root, "SELECT count(*) FROM stored WHERE dataset = 'others'") == [(7,)]


def test_a_moved_folder_and_a_new_revision_compute_only_what_is_new(root: Path, tmp_path: Path) -> None:
    build_version(root, REQUEST, FakeDecomposer())
    before = shards(root)
    index_dataset(root, "pets", Path(shutil.move(tmp_path / "pets", tmp_path / "elsewhere")))
    decomposer = FakeDecomposer()
    assert build_version(root, REQUEST, decomposer).present == 6
    assert (decomposer.calls, shards(root)) == ([], before)
    make_folder(tmp_path / "elsewhere" / "new", count=2, seed=9)
    (tmp_path / "elsewhere" / "cats" / "001.png").rename(tmp_path / "elsewhere" / "dogs" / "renamed.png")
    (tmp_path / "elsewhere" / "cats" / "003.png").unlink()
    report = index_dataset(root, "pets", None)
    assert (report.added, report.removed, report.images) == (3, 2, 7)
    again = build_version(root, REQUEST, decomposer)
    assert (again.version, again.wanted, again.present, again.computed) == ("v1", 7, 5, 2)
    assert before.items() <= shards(root).items()
    assert rows(root, "SELECT stored, images FROM coverage") == [(7, 7)]


def test_two_copies_of_one_image_are_computed_once(root: Path, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "pets" / "cats" / "001.png", tmp_path / "pets" / "cats" / "copy.png")
    index_dataset(root, "pets", None)
    decomposer = FakeDecomposer(batch_size=1)
    assert build_version(root, REQUEST, decomposer).wanted == 7
    assert sum(decomposer.calls) == 6
    assert rows(root, "SELECT count(*) FROM stored") == [(7,)]


def test_variants_are_written_as_asked_and_added_later(root: Path) -> None:
    build_version(root, Request("pets", "fake", variants=("clean",)), FakeDecomposer())
    with restricted(root) as connection:
        assert connection.execute("SELECT DISTINCT variants FROM shards").fetchall() == [(["clean"],)]
    assert build_version(root, Request("pets", "fake", variants=("clean",)), FakeDecomposer()).computed == 0
    report = build_version(root, Request("pets", "fake", variants=("raw",)), FakeDecomposer())
    assert (report.version, report.computed) == ("v1", 6)
    assert rows(root, "SELECT DISTINCT variants FROM stored") == [(["raw", "clean"],)]
    assert rows(root, "SELECT count(*) FROM features WHERE checksum_raw IS NULL OR checksum_clean IS NULL") == [(0,)]


def test_what_cannot_be_computed_is_listed_and_the_rest_is_built(root: Path, tmp_path: Path) -> None:
    (tmp_path / "pets" / "cats" / "001.png").unlink()
    changed = tmp_path / "pets" / "cats" / "003.png"
    changed.write_bytes(changed.read_bytes() + b" ")
    poison = str(rows(root, "SELECT sha256 FROM images WHERE image_id = 'dogs/000.png'")[0][0])
    report = build_version(root, REQUEST, FakeDecomposer(batch_size=3, poison=poison))
    assert (report.computed, report.failed) == (3, 3)
    found = {row[0]: row[1:] for row in rows(root, "SELECT image_id, step, error FROM failures")}
    assert found["cats/001.png"] == ("read", "No such file or directory")
    assert found["cats/003.png"] == ("read", "the file changed since it was indexed: run featstore index again")
    assert found["dogs/000.png"] == ("features", "the views do not determine the solution")
    assert rows(root, "SELECT stored, failed FROM coverage") == [(3, 3)]

    decomposer = FakeDecomposer()
    again = build_version(root, REQUEST, decomposer)
    assert (again.computed, again.failed, decomposer.calls) == (0, 3, [])
    index_dataset(root, "pets", None)
    retried = build_version(root, Request("pets", "fake", retry_failed=True), FakeDecomposer())
    assert (retried.wanted, retried.computed, retried.failed) == (5, 2, 0)


def test_a_prefix_token_that_float16_cannot_hold_fails_its_image_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = FakeDecomposer.one

    def one(self: FakeDecomposer, image: np.ndarray) -> Maps:
        maps = honest(self, image)
        return replace(maps, prefix=maps.prefix * 1e5) if image[0, 0, 0] == first[0, 0, 0] else maps

    first = decode((root.parent / "pets" / "cats" / "001.png").read_bytes())
    monkeypatch.setattr(FakeDecomposer, "one", one)
    report = build_version(root, REQUEST, FakeDecomposer())
    assert (report.computed, report.failed) == (5, 1)
    (failed,) = rows(root, "SELECT image_id, step, error FROM failures")
    assert failed[:2] == ("cats/001.png", "features")
    assert "prefix token" in str(failed[2])


def test_a_shard_in_which_all_failed_leaves_no_file(root: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "pets")
    (tmp_path / "pets").mkdir()
    report = build_version(root, REQUEST, FakeDecomposer())
    assert (report.computed, report.failed, report.shards) == (0, 6, 0)
    assert shards(root) == {}
    assert rows(root, "SELECT count(*) FROM failures") == [(6,)]


def test_a_missing_or_shortened_shard_is_made_again_the_same(root: Path) -> None:
    build_version(root, REQUEST, FakeDecomposer())
    before = shards(root)
    first, second = (root / name for name in before)
    first.unlink()
    second.write_bytes(second.read_bytes()[:-100])
    said: list[str] = []
    report = build_version(root, REQUEST, FakeDecomposer(), Listener(said=said.append))
    assert (report.computed, report.present) == (6, 0)
    assert len([line for line in said if "missing or cut short" in line]) == 2
    assert list(shards(root).values()) == list(before.values())


def test_a_sealed_shard_that_was_not_listed_is_taken_in(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = root.parent / "undisturbed"
    shutil.copytree(root, undisturbed)
    build_version(undisturbed, REQUEST, FakeDecomposer())

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("featstore.committing.commit_shard", die)
        with pytest.raises(KeyboardInterrupt):
            build_version(root, REQUEST, FakeDecomposer())
    assert len(shards(root)) == 1
    decomposer = FakeDecomposer()
    report = build_version(root, REQUEST, decomposer)
    assert (report.present, report.computed, sum(decomposer.calls)) == (4, 2, 2)
    assert shards(root) == shards(undisturbed)


def test_killed_at_random_moments_it_ends_with_the_same_bytes(root: Path, tmp_path: Path) -> None:
    make_folder(tmp_path / "pets", count=24, seed=5)
    index_dataset(root, "pets", None)
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(root, undisturbed)
    build_version(undisturbed, Request("pets", "fake", shard_size=3), FakeDecomposer())
    worker = [sys.executable, str(Path(__file__).parent / "support" / "build_worker.py"), str(root)]
    generator = random.Random(3)
    kills = 0
    for _ in range(12):  # fifty, with a verification after each, are in test_crash.py
        with subprocess.Popen(worker, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(generator.uniform(0, 0.5))
            process.send_signal(signal.SIGKILL)
        kills += process.returncode == -signal.SIGKILL
        if process.returncode == 0:
            break
    subprocess.run(worker, check=True, stdout=subprocess.DEVNULL)
    assert kills >= 2
    assert shards(root) == shards(undisturbed)
    assert rows(root, "SELECT stored, images FROM coverage") == [(24, 24)]
    assert [path.name for path in root.rglob(".tmp-*")] == []
    assert rows(root, "SELECT count(*), count(DISTINCT sha256) FROM features") == [(24, 24)]


def test_a_second_build_says_who_holds_the_root(root: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from featstore.root import build_lock\n"
        "with build_lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=rf"process {other.pid} on .* is building"):
            build_version(root, REQUEST, FakeDecomposer())
        other.stdin.close()
    assert build_version(root, REQUEST, FakeDecomposer(), wait=10).computed == 6


def test_the_lock_is_free_after_a_build_that_raised(root: Path) -> None:
    with pytest.raises(InputError), build_lock(root):
        raise InputError("x")
    assert build_version(root, REQUEST, FakeDecomposer()).computed == 6


def test_a_plan_counts_what_a_build_then_does(root: Path) -> None:
    plan = make_plan(root, REQUEST, FakeDecomposer())
    assert (plan.wanted, plan.present, len(plan.todo), plan.shard_size) == (6, 0, 6, 4)
    assert plan.bytes_to_write == 6 * 8 * 2 * (4 * 5 * 4 + 1)
    assert not plan.folder.exists()


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (Request("nobody", "fake"), NotInStoreError, "no data set 'nobody'.*pets"),
        (Request("pets", "fake", variants=("clear",)), InputError, "unknown variant 'clear'"),
        (Request("pets", "fake", where="nonsense > 1"), QueryError, "nonsense"),
        (Request("pets", "fake", where="1; DROP TABLE images"), QueryError, "parsed|statements"),
    ],
)
def test_wrong_requests_say_what_is_wrong(root: Path, request_: Request, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        build_version(root, request_, FakeDecomposer())


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/sys/kernel").is_dir(), reason="no read-only file system at hand")
def test_a_root_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        root = Path("/sys/kernel/store")  # root may write anywhere but there
    else:
        root = tmp_path / "locked"
        root.mkdir(mode=0o500)
    with pytest.raises(StoreError, match=r"cannot write to the store .*--root"):
        index_dataset(root, "pets", make_folder(tmp_path / "pets"))
