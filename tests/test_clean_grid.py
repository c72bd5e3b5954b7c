"""``featstore build --clean-grid``: from the option to what ``ls`` and ``show`` say."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes import FakeDecomposer, make_folder

from featstore.cli import build as build_module
from featstore.cli import method as method_module
from featstore.cli.compute import ComputeOptions
from featstore.cli.main import main


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


@pytest.fixture
def _model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh working folder, and a stand-in for the model."""

    def decomposer(options: ComputeOptions, *_: object) -> FakeDecomposer:
        return FakeDecomposer(fine_grid=options.clean_grid)

    recipe = {"input": [8, 8], "stride": 1, "layer": 0, "dtype": "float32"}
    backbone = SimpleNamespace(
        id="fake", weights_source="none", device=SimpleNamespace(type="cpu"), recipe=lambda: recipe
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(build_module, "load_backbone", lambda options: backbone)
    monkeypatch.setattr(method_module, "begins_from_artifact", lambda compute: False)  # a fake model has none
    monkeypatch.setattr(build_module, "make_decomposer", decomposer)
    make_folder(tmp_path / "pets")


@pytest.mark.usefixtures("_model")
def test_the_option_is_passed_on_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("build", "pets", "--source", "pets", "--clean-grid", "7x3") == 0
    assert "raw, clean, artifact, residual, clean_fine" in capsys.readouterr().out
    assert call("show", "v1") == 0
    shown = capsys.readouterr().out
    assert "4×5×8 float16 (height × width × channels): artifact, clean, raw, residual\n" in shown
    assert "fine     7×3×8 float16 (height × width × channels): clean_fine\n" in shown
    assert call("build", "pets") == 0
    assert call("ls") == 0
    listed = capsys.readouterr().out
    assert "4×5×8, fine 7×3 " in listed
    assert "4×5×8 " in listed
    assert call("show", "v2") == 0
    assert "fine " not in capsys.readouterr().out


@pytest.mark.usefixtures("_model")
def test_raw_features_have_no_clean_map(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("build", "pets", "--source", "pets", "--method", "raw", "--clean-grid", "9") == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "Error: --clean-grid is of --method stage1, not of raw: leave it out"
    assert not Path("feature-store").exists()
