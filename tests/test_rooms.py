"""The doors between the rooms are shut, and files stay small enough to read."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
ROOMS = {"dvt": ("featstore", "click", "h5py", "duckdb"), "featstore": ("dvt", "click"), "schemas": ("torch", "dvt")}
TORCH_ALLOWED = {
    "featstore/batches.py",
    "featstore/samples.py",
    "featstore/curves.py",
    "featstore/dataset.py",
    "featstore/extras.py",
    "featstore/loading.py",
    "featstore/stream.py",
    "featstore/pairs.py",
    "featstore/parcels.py",
}


def modules(room: str) -> list[Path]:
    return sorted((REPOSITORY / room).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_opens_a_door_that_is_not_its_own(room: str) -> None:
    assert modules(room)
    found = {(path.name, name) for path in modules(room) for name in imported(path) if name in ROOMS[room]}
    assert not found


def test_only_readers_import_torch() -> None:
    users = {path.relative_to(REPOSITORY).as_posix() for path in modules("featstore") if "torch" in imported(path)}
    assert users == TORCH_ALLOWED


def test_only_the_place_where_they_meet_imports_dvt() -> None:
    users = {path.name for path in modules("cli") if "dvt" in imported(path)}
    meeting = {
        "backbones.py",
        "bench_methods.py",
        "compute.py",
        "denoise.py",
        "denoisers.py",
        "diagnosing.py",
        "eval.py",
        "evaluated.py",
        "evaluating.py",
        "evaluating_objects.py",
        "evaluating_patches.py",
        "method.py",
        "neighbours.py",
        "reproduce.py",
        "train.py",
        "training.py",
    }
    assert users == meeting


def test_files_and_functions_stay_short() -> None:
    long = []
    for path in [path for room in ("dvt", "featstore", "cli", "schemas") for path in modules(room)]:
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > 250:
            long.append(path.name)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 60:
                long.append(f"{path.name}:{node.name}")
    assert not long
