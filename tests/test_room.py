"""A build that cannot fit is refused before it begins; the estimate says so, and where its figures are from."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeDecomposer, make_folder
from tinystore import MODEL, call

from featstore import room
from featstore.build import build_version
from featstore.errors import StoreError
from featstore.index import index_dataset
from featstore.places import path_of
from featstore.plan import Request, make_plan

REQUEST = Request("pets", "fake", shard_size=2)


class Usage:
    """A disk with so many bytes free."""

    def __init__(self, free: int) -> None:
        self.free = free


@pytest.fixture
def root(tmp_path: Path) -> Path:
    index_dataset(tmp_path / "store", "pets", make_folder(tmp_path / "pets"))
    return tmp_path / "store"


def leave(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: Usage(free))


def test_what_cannot_fit_is_refused_and_nothing_begun(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(monkeypatch, 10**6)
    before = sorted(root.rglob("*"))
    with pytest.raises(StoreError, match=r"does not fit: it needs 33\.6 MB .* has 1\.0 MB free; .*--force") as caught:
        build_version(root, REQUEST, FakeDecomposer())
    assert "\n" not in str(caught.value)
    assert sorted({*root.rglob("*")} - {root / ".build.lock"}) == before
    assert build_version(root, REQUEST, FakeDecomposer(), force=True).computed == 6
    assert build_version(root, REQUEST, FakeDecomposer()).present == 6  # nothing to do fits anywhere


def test_the_limit_is_what_the_shards_take_and_a_margin(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(root, REQUEST, FakeDecomposer())
    assert room.needed(plan) == plan.bytes_to_write + room.LEAST
    leave(monkeypatch, room.needed(plan) - 1)
    with pytest.raises(StoreError):
        room.check_room(root, [plan])
    leave(monkeypatch, room.needed(plan))
    room.check_room(root, [plan])
    report = build_version(root, REQUEST, FakeDecomposer())
    assert plan.bytes_to_write < report.bytes < room.needed(plan)


def test_free_space_is_that_of_the_file_system(tmp_path: Path) -> None:
    free = room.free_bytes(tmp_path / "not" / "there")
    assert free is not None
    assert abs(free - shutil.disk_usage(tmp_path).free) < 2**30
    assert room.free_bytes(path_of("memory://store")) is None


def test_the_estimate_tells_of_room_and_of_how_it_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, root = make_folder(tmp_path / "pets", 3), ("--root", tmp_path / "store")
    build = ("build", "pets", *MODEL, "--views", "6", "--holdout", "1", *root)
    dry = call(*build, "--source", folder, "--dry-run")
    assert dry.code == 0, dry.err
    assert "free there" in dry.out
    assert "measured here: one batch of views at each input, and one solve" in dry.out
    facts = json.loads(call(*build, "--dry-run", "--json").out)
    assert (facts["fits"], facts["measured"], facts["workers"]) == (True, True, 1)
    assert 0 < facts["seconds_per_image"] * 3 == pytest.approx(facts["seconds"])

    leave(monkeypatch, 1000)
    full = call(*build, "--dry-run")
    assert (full.code, "it does not fit, and is refused without --force" in full.out) == (0, True)
    refused = call(*build)
    assert refused.code == 1
    assert refused.err.splitlines()[-1].startswith("error: this build does not fit")
    assert call(*build, "--force", "--limit", 2).code == 0
    again = call(*build, "--dry-run")
    assert "as those took that are stored" in again.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("--method", "stage2", "--views", "8"),
            "--views is of --method stage1 and shift-mean, not of stage2: leave it out",
        ),
        (
            ("--method", "raw", "--nodes", "9", "--solver", "lstsq"),
            "--solver, --nodes are of --method stage1, not of raw",
        ),
        (("--method", "stage1", "--compile"), "--compile is of --method stage2, not of stage1"),
        (("--denoiser", "d1", "--rounds", "2"), "--rounds is of --method stage1, not of stage2"),
    ],
)
def test_options_of_another_method_are_refused(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    said: Any = call("build", "pets", *MODEL, *words, "--root", tmp_path)
    assert said.code == 2
    assert told in said.err
