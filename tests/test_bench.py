"""``featstore bench stage1`` as a user meets it, on a small input with random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featstore.cli.main import main

QUICK = ("--backbone", "vit_tiny_patch16_224", "--weights", "random", "--input-size", "64", "--device", "cpu")


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 255, (6, 8, 3), dtype=np.uint8))
    path = tmp_path / "photo.png"
    coarse.resize((80, 60), Image.Resampling.BICUBIC).save(path)
    return path


def test_every_solver_and_number_of_views_is_measured(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("--solvers", "lstsq,field,faithful", "--views", "4,12", "--holdout", "4", "--iterations", "20", "--json")
    assert call("bench", "stage1", str(photo), *QUICK, *more) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["label"], row["views"]) for row in rows] == [
        (label, views) for label in ("lstsq", "field", "faithful") for views in (4, 12)
    ]
    assert {row["image"] for row in rows} == {"photo.png"}
    for row in rows:
        assert row["solve_seconds"] > 0
        assert row["heldout_r2"] < 1
        assert row["peak_bytes"] > 1e7


def test_the_table_is_the_mean_over_photographs(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = photo.with_name("other.png")
    Image.open(photo).transpose(Image.Transpose.ROTATE_90).save(other)
    arguments = ("bench", "stage1", str(photo), str(other), *QUICK, "--views", "6")
    assert call(*arguments, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert call(*arguments) == 0
    line = capsys.readouterr().out.splitlines()[-1].split()
    assert line[:2] == ["lstsq", "6"]
    assert float(line[4]) == pytest.approx(np.mean([row["heldout_r2"] for row in rows]), abs=1e-4)


def test_what_cannot_be_measured_is_told(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("bench", "stage1", str(photo), *QUICK, "--solvers", "magic") == 1
    assert "choose from lstsq, field, faithful" in capsys.readouterr().err
    broken = photo.with_name("broken.png")
    broken.write_bytes(b"no picture")
    assert call("bench", "stage1", str(broken), *QUICK) == 1
    assert "broken.png" in capsys.readouterr().err
    assert call("bench", "stage1", str(photo), *QUICK, "--views", "0") == 2
