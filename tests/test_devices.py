"""Which devices --device names, and a build on two of them, with a real model and the real command line."""

import json
from pathlib import Path

import click
import h5py
import numpy as np
import pytest
import torch
from fakes import FakeDecomposer, make_folder

from featstore.cli import devices
from featstore.cli.build import build
from featstore.cli.build_report import report_plans
from featstore.cli.main import main
from featstore.errors import InputError
from featstore.index import index_dataset
from featstore.plan import Request, make_plan

OPTIONS = ["--weights", "random", "--input-size", "64", "--views", "4", "--holdout", "1", "--nodes", "8"]
BUILD = ["build", "pets", "--backbone", "test_vit", *OPTIONS, "--variants", "raw,clean", "--shard-size", "2", "--json"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("auto", ("auto",)),
        ("mps", ("mps",)),
        ("cuda:9", ("cuda:9",)),
        ("cpu,cpu", ("cpu", "cpu")),
        (" CUDA:1, cuda", ("cuda:1", "cuda:0")),
        ("all", ("cuda:0", "cuda:1")),
    ],
)
def test_a_list_names_devices(text: str, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cuda_devices", lambda: 2)
    assert devices.parse_devices(text) == names


@pytest.mark.parametrize(
    ("text", "count", "words"),
    [
        ("cuda:0,cuda:2", 2, "there is no cuda:2 here; there are cuda:0, cuda:1"),
        ("cuda:0,cuda:1", 0, "there is no cuda:0 here; there is no CUDA device at all"),
        ("cuda,cuda:0", 2, "cuda:0 is given twice"),
        ("cpu,cuda:0", 2, "cpu and GPUs compute different numbers"),
        ("cpu,auto", 2, "'auto' cannot stand in a list"),
        ("cpu,", 2, "'' cannot stand in a list"),
        ("all", 0, "there is no CUDA device here"),
    ],
)
def test_a_wrong_list_is_told_in_one_line(text: str, count: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cuda_devices", lambda: count)
    with pytest.raises(InputError, match=words) as caught:
        devices.parse_devices(text)
    assert "\n" not in str(caught.value)


def test_an_estimate_is_that_of_the_process_with_the_most_shards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeDecomposer, "seconds_per_image", lambda self: 2.0, raising=False)
    index_dataset(tmp_path / "store", "pets", make_folder(tmp_path / "pets"))
    plan = make_plan(tmp_path / "store", Request("pets", "fake", shard_size=2), FakeDecomposer())
    seconds = []
    for processes in (1, 2, 3, 9):
        report_plans(tmp_path / "store", [plan], [FakeDecomposer()], True, processes)
        seconds.append(json.loads(capsys.readouterr().out)["seconds"])
    assert seconds == [12, 8, 4, 4]


def test_help_tells_of_lists() -> None:
    with click.Context(build, info_name="build") as context:
        assert "cuda:0,cuda:1" in build.get_help(context)


def test_two_processes_store_what_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder(tmp_path / "pets", 5)
    threads = torch.get_num_threads()
    reports = []
    for name, device in (("one", "cpu"), ("two", "cpu,cpu")):
        monkeypatch.setenv("FEATSTORE_ROOT", str(tmp_path / name))
        try:
            with pytest.raises(SystemExit) as stop:
                main([*BUILD, "--source", str(tmp_path / "pets"), "--device", device])
        finally:
            torch.set_num_threads(threads)
        captured = capsys.readouterr()
        assert stop.value.code == 0, captured.err
        reports.append(json.loads(captured.out))
    one, two = reports
    same = ("version", "digest", "computed", "failed", "shards", "variants")
    assert [one[key] for key in same] == [two[key] for key in same] == ["v1", one["digest"], 5, 0, 3, ["raw", "clean"]]
    names = [sorted(path.name for path in Path(report["folder"]).iterdir()) for report in reports]
    assert names[0] == names[1]
    for name in (name for name in names[0] if name.endswith(".h5")):
        with h5py.File(Path(one["folder"]) / name) as alone, h5py.File(Path(two["folder"]) / name) as together:
            assert {k: str(v) for k, v in alone.attrs.items()} == {k: str(v) for k, v in together.attrs.items()}
            assert list(alone["image_id"]) == list(together["image_id"])
            for variant in ("raw", "clean"):  # fewer threads may round the last bit elsewhere
                np.testing.assert_allclose(alone[variant], together[variant], atol=2e-2)
