"""gc: what it takes, what it never takes, and that a kill in the middle, or any row of commands, loses nothing."""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path

import pytest
from fakes import FakeDecomposer, make_folder
from keeping import check_store, shard_files
from tinystore import call, done, rows

from featstore import collection
from featstore.build import build_version
from featstore.collection import collect_garbage
from featstore.errors import InputError, LockedError, NotInStoreError
from featstore.garbage import plan_garbage
from featstore.index import index_dataset
from featstore.places import path_of
from featstore.plan import Request
from featstore.recipe import Recipe
from featstore.removal import remove_dataset, remove_version
from featstore.root import build_lock, hold_lock
from featstore.tags import tag_version
from featstore.training_run import TrainingRun


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``pets`` of six images with v1 and v2; ``others``, the first four of them, with v1 of the recipe of pets' v1."""
    folder = tmp_path_factory.mktemp("garbage")
    root = folder / "store"
    index_dataset(root, "pets", make_folder(folder / "pets"))
    shutil.copytree(folder / "pets" / "cats", folder / "others")
    index_dataset(root, "others", folder / "others")
    for name, scale in (("pets", 1.0), ("pets", 2.0), ("others", 1.0)):
        build(root, name, scale)
    return root


@pytest.fixture
def root(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "store"))


def build(root: Path, name: str = "pets", scale: float = 1.0, **options: object) -> tuple[int, int]:
    report = build_version(root, Request(name, "fake", shard_size=2, **options), FakeDecomposer(scale))  # type: ignore[arg-type]
    return report.present, report.computed


def kinds(plan: collection.GarbagePlan) -> list[tuple[str, str]]:
    return sorted({(item.kind, item.why) for item in plan.garbage})


def test_a_store_without_garbage_stays_as_it_is(root: Path) -> None:
    before = {
        path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file() and path.name != ".build.lock"
    }
    assert collect_garbage(root).garbage == ()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert check_store(root) == 6 + 6 + 3


def test_shards_of_a_removed_version_go_with_its_folder_and_rows(root: Path) -> None:
    folder = root / str(rows(root, "SELECT min(shard) FROM stored WHERE version = 'v2'")[0][0])
    remove_version(root, "pets/fake/v2")
    (folder.parent / "croissant.json").write_text("{}")
    size = sum(path.stat().st_size for path in folder.parent.iterdir())
    planned = plan_garbage(root)
    assert planned.rows == 6
    assert planned.bytes == size
    assert collect_garbage(root) == planned
    assert not folder.parent.exists()
    assert rows(root, "SELECT count(*) FROM features") == [(6,)]
    assert rows(root, "SELECT count(*) FROM removed WHERE purged_at IS NULL") == [(0,)]
    assert collect_garbage(root).garbage == ()
    assert check_store(root) == 6 + 3


def test_what_another_data_set_refers_to_survives_and_the_rest_of_the_version_goes(root: Path) -> None:
    used = {row[0] for row in rows(root, "SELECT shard FROM stored WHERE dataset = 'others'")}
    remove_version(root, "pets/fake/v1")
    remove_version(root, "pets/fake/v2")
    collect_garbage(root)
    assert shard_files(root) == used
    assert build(root, "others") == (3, 0)
    assert check_store(root) == 3
    remove_dataset(root, "others")
    collect_garbage(root)
    assert shard_files(root) == set()


def test_the_same_bytes_after_rm_and_gc_of_the_first_data_set_are_not_computed_again(root: Path, store: Path) -> None:
    remove_dataset(root, "pets")
    collect_garbage(root)
    assert build(root, "others") == (3, 0)
    index_dataset(root, "pets", store.parent / "pets")
    present, computed = build(root, "pets")
    assert (present, computed) == (rows(root, "SELECT count(*) FROM features")[0][0] - computed, 6 - present)
    assert present >= 3
    assert check_store(root) == 6 + 3


def test_a_superseded_shard_goes(root: Path) -> None:
    index_dataset(root, "more", make_folder(root.parent / "more", count=3, seed=8))
    build(root, "more", variants=("clean",))
    before = shard_files(root)
    build(root, "more", variants=("raw",))
    plan = collect_garbage(root)
    assert kinds(plan) == [("shard", "other shards hold all of its images")]
    assert {item.path for item in plan.garbage} == {name for name in before if name.startswith("more/")}
    assert rows(root, "SELECT stored, images FROM coverage WHERE dataset = 'more'") == [(3, 3)]
    assert check_store(root) == 6 + 6 + 3 + 3


def test_old_revisions_are_kept_unless_asked(root: Path, store: Path, tmp_path: Path) -> None:
    index_dataset(root, "pets", shutil.copytree(store.parent / "pets" / "cats", tmp_path / "pets" / "cats").parent)
    shared = {row[0] for row in rows(root, "SELECT shard FROM stored")}
    assert collect_garbage(root).garbage == ()
    plan = collect_garbage(root, old_revisions=True)
    assert kinds(plan) == [("shard", "none of its images is in a revision")]
    assert shard_files(root) == shared
    assert rows(root, "SELECT stored, images FROM coverage WHERE dataset = 'pets'") == [(3, 3), (3, 3)]


def test_a_sealed_shard_that_the_manifest_does_not_know_is_never_deleted(root: Path, store: Path) -> None:
    with_all = shard_files(root)
    (root / "manifest.duckdb").unlink()
    index_dataset(root, "pets", store.parent / "pets")
    plan = collect_garbage(root)
    assert plan.garbage == ()
    assert {path for path, _ in plan.left} == with_all == shard_files(root)
    said = done("gc", "--root", root)
    assert "featstore manifest rebuild" in said.err
    assert build(root) == (6, 0)


def test_an_unlisted_shard_of_a_removed_version_goes(root: Path) -> None:
    (shard,) = {row[0] for row in rows(root, "SELECT min(shard) FROM stored WHERE version = 'v2'")}
    remove_version(root, "pets/fake/v2")
    (root / shard).with_name("shard-00077.h5").write_bytes((root / shard).read_bytes())
    collect_garbage(root)
    assert not (root / shard).parent.exists()


def test_after_gc_a_removed_folder_is_like_any_other(root: Path) -> None:
    """A backup copied back after gc is a shard that the manifest does not know, and no longer one that was removed."""
    (shard,) = {row[0] for row in rows(root, "SELECT min(shard) FROM stored WHERE version = 'v2'")}
    data = (root / shard).read_bytes()
    remove_version(root, "pets/fake/v2")
    collect_garbage(root)
    (root / shard).parent.mkdir(parents=True)
    (root / shard).write_bytes(data)
    assert [path for path, _ in collect_garbage(root).left] == [shard]
    assert build(root, scale=2.0) == (2, 4)


def test_what_dead_processes_were_writing_goes_and_what_others_write_stays(root: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    folder = root / "pets" / "fake"
    host = socket.gethostname()
    dead = folder / f".tmp-{host}-{process.pid}-0123abcd"
    alive = [folder / f".tmp-{host}-{os.getppid()}-0123abcd", folder / f".tmp-elsewhere-{process.pid}-0123abcd"]
    for path in (dead, *alive):
        path.write_bytes(b"half")
    plan = collect_garbage(root)
    assert [(item.kind, item.path, item.bytes) for item in plan.garbage] == [
        ("temporary", dead.relative_to(root).as_posix(), 4)
    ]
    assert {path for path, _ in plan.left} == {path.relative_to(root).as_posix() for path in alive}
    assert not dead.exists()
    assert all(path.exists() for path in alive)


def test_what_jobs_of_slurm_left_goes_but_not_while_a_build_runs(root: Path) -> None:
    left = root / ".slurm" / "7-abc" / "jobs" / "12_log.err"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"gone")
    with build_lock(root):
        assert plan_garbage(root).garbage == ()
    assert [item.path for item in plan_garbage(root).garbage] == [".slurm/7-abc/jobs/12_log.err"]
    collect_garbage(root)
    assert not (root / ".slurm").exists()


def test_empty_folders_go(root: Path) -> None:
    (root / "pets" / "fake" / "000000000000" / "deep").mkdir(parents=True)
    collect_garbage(root)
    assert not (root / "pets" / "fake" / "000000000000").exists()


def test_trainings_and_calibrations_go_with_what_they_are_of(root: Path) -> None:
    digests = dict(rows(root, "SELECT number, digest FROM versions WHERE dataset = 'pets'"))
    for number in (1, 2):
        run = TrainingRun(root, "pets", "fake", Recipe.of({"version": digests[number], "steps": number}))
        with run.held():
            run.save(b"state")
    (root / ".calibrations").mkdir()
    (root / ".calibrations" / "aaaaaaaaaaaa-bbbbbbbbbbbb.npy").write_bytes(b"x")
    remove_version(root, "pets/fake/v2")
    with hold_lock(run.folder / ".lock", "training"):
        assert not [item for item in plan_garbage(root).garbage if item.kind == "training"]
    plan = collect_garbage(root)
    assert {item.kind for item in plan.garbage} == {"shard", "document", "training", "calibration"}
    assert not run.folder.exists()
    assert not (root / ".calibrations").exists()
    assert len(list(root.rglob("checkpoint.safetensors"))) == 1


def test_a_listed_denoiser_stays_when_its_version_goes(trained: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(trained, tmp_path / "trained"))
    before = {path for path in root.rglob("denoisers/*/*") if path.is_file()}
    said = done("rm", "pets", "--dataset", "--root", root)
    assert "the denoiser pets/test_vit/d1, trained on it, stays" in said.out
    collect_garbage(root)
    assert {path for path in root.rglob("denoisers/*/*") if path.is_file()} == before
    assert shard_files(root) == set()


class Killed(BaseException):
    """Nothing catches it, as nothing catches a signal."""


@pytest.mark.parametrize("moment", [0, 1, 4, 6, 7])
def test_killed_at_any_moment_it_goes_on_and_loses_nothing(
    root: Path, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_version(root, "pets/fake/v2")
    remove_version(root, "pets/fake/v1")
    steps = 0

    def until(name: str) -> None:
        honest = getattr(collection, name)

        def step(*arguments: object) -> None:
            nonlocal steps
            steps += 1
            if steps > moment:
                raise Killed
            honest(*arguments)

        monkeypatch.setattr(collection, name, step)

    for name in ("forget_features", "delete", "remove_empty", "forget_shards"):
        until(name)
    with pytest.raises(Killed):
        collect_garbage(root)
    monkeypatch.undo()
    assert check_store(root) == 3
    if moment % 2:  # a build comes first
        assert build(root, "others") == (3, 0)
        assert build(root, "pets")[0] >= 3
        assert check_store(root) == 6 + 3
    collect_garbage(root)
    assert collect_garbage(root).garbage == ()
    unused = "SELECT count(*) FROM shards WHERE shard_id NOT IN (SELECT shard_id FROM features)"
    assert rows(root, unused) == [(0,)]
    assert shard_files(root) == {row[0] for row in rows(root, "SELECT path FROM shards")}
    assert check_store(root) == (6 + 3 if moment % 2 else 3)


def test_dry_run_json_lock_and_no_store(root: Path, tmp_path: Path) -> None:
    remove_version(root, "pets/fake/v2")
    before = shard_files(root)
    facts = json.loads(done("gc", "--dry-run", "--json", "--root", root).out)
    assert (facts["dry_run"], facts["files"], facts["rows"]) == (True, 5, 6)
    assert shard_files(root) == before
    with build_lock(root), pytest.raises(LockedError, match="is building"):
        collect_garbage(root)
    told = json.loads(done("gc", "--json", "--root", root).out)
    assert told == facts | {"dry_run": False}
    assert "deleted 0 files, 0 bytes" in done("gc", "--root", root).out
    assert call("gc", "--root", tmp_path / "nowhere").code == 1
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, range(2, 8)])
def test_any_row_of_commands_keeps_what_versions_list(tmp_path: Path, seed: int | range) -> None:
    """Random builds, removals, tags, changed sources and collections; after each, every listed map is what it should be."""
    for number in [seed] if isinstance(seed, int) else seed:
        Story(tmp_path / str(number), random.Random(number)).play(12)


class Story:
    """A store that random things happen to."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder, self.chance, self.root, self.fresh = folder, chance, folder / "store", 0
        for name in ("a", "b"):
            make_folder(folder / name, count=3, seed=5)
            index_dataset(self.root, name, folder / name)

    def play(self, steps: int) -> None:
        for _ in range(steps):
            action = self.chance.choice([self.build, self.build, self.remove, self.change, self.tag, self.collect])
            with suppress(InputError, NotInStoreError):  # a tagged version, and one without a tag
                action()
            check_store(self.root)
        for name in ("a", "b"):
            index_dataset(self.root, name, self.folder / name)
        collect_garbage(self.root, old_revisions=True)
        check_store(self.root)
        listed = "SELECT DISTINCT path FROM shards JOIN features USING (shard_id)"
        assert shard_files(self.root) == {row[0] for row in rows(self.root, listed)}
        assert collect_garbage(self.root, old_revisions=True).garbage == ()

    def build(self) -> None:
        name, scale = self.chance.choice("ab"), self.chance.choice([1.0, 2.0])
        variants = self.chance.choice([(), ("clean",), ("raw", "clean")])
        decomposer = FakeDecomposer(scale)
        digest, asked = Recipe.of(decomposer.recipe()).digest, list(variants or decomposer.variants)
        have = rows(
            self.root,
            f"SELECT sha256 FROM features f JOIN shards s USING (shard_id) WHERE f.digest = '{digest}' "
            f"AND list_has_all(s.variants, {asked})",
        )
        wanted = set(rows(self.root, f"SELECT sha256 FROM current_images WHERE dataset = '{name}'"))
        request = Request(name, "fake", variants=variants, shard_size=self.chance.choice([1, 2, 5]))
        build_version(self.root, request, decomposer)
        assert sum(decomposer.calls) == len(wanted - set(have))  # removed or not: what is there is not computed again
        stored = f"SELECT sha256 FROM stored WHERE dataset = '{name}' AND digest = '{digest}'"
        assert set(rows(self.root, stored)) == wanted

    def remove(self) -> None:
        if self.chance.random() < 0.2:
            name = self.chance.choice("ab")
            remove_dataset(self.root, name, force=self.chance.random() < 0.7)
            index_dataset(self.root, name, self.folder / name)
            return
        versions = rows(self.root, "SELECT dataset || '/' || backbone || '/v' || number FROM versions ORDER BY 1")
        if versions:
            remove_version(self.root, self.chance.choice(versions)[0], force=self.chance.random() < 0.5)

    def change(self) -> None:
        name = self.chance.choice("ab")
        files = sorted((self.folder / name).rglob("*.png"))
        if len(files) > 2 and self.chance.random() < 0.5:
            self.chance.choice(files).unlink()
        else:
            self.fresh += 1
            make_folder(self.folder / name / f"new{self.fresh}", count=1, seed=self.chance.randrange(50))
        index_dataset(self.root, name, self.folder / name)

    def tag(self) -> None:
        versions = rows(self.root, "SELECT dataset || '/' || backbone, 'v' || number FROM versions ORDER BY ALL")
        if versions:
            tag_version(
                self.root, *self.chance.choice(versions), self.chance.choice(["paper", "draft", None]), force=True
            )

    def collect(self) -> None:
        collect_garbage(self.root, old_revisions=self.chance.random() < 0.4)


def test_behind_a_url_the_same_goes(tmp_path: Path) -> None:
    root = path_of(f"memory://{uuid.uuid4().hex}/store")
    index_dataset(root, "pets", make_folder(tmp_path / "pets"))
    for scale in (1.0, 2.0):
        build(root, scale=scale)
    before = {str(path) for path in root.rglob("*.h5")}
    remove_version(root, "pets/fake/v1")
    planned = plan_garbage(root)
    assert collect_garbage(root) == planned
    gone = {str(root / item.path) for item in planned.garbage if item.kind == "shard"}
    assert len(gone) == 3
    assert {str(path) for path in root.rglob("*.h5")} == before - gone
    assert build(root, scale=2.0) == (6, 0)
    assert collect_garbage(root).garbage == ()
