import math

import numpy as np
import pytest
import torch

from dvt.quality import figures, heldout


def test_norms_of_known_tokens() -> None:
    raw = torch.tensor([[[3.0, 4.0], [0.0, 1.0], [6.0, 8.0]]])
    assert figures(torch.stack([raw, 2 * raw])) == [
        {"norm_min": 1.0, "norm_median": 5.0, "norm_max": 10.0},
        {"norm_min": 2.0, "norm_median": 10.0, "norm_max": 20.0},
    ]


def test_r2_agrees_with_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    raw = generator.standard_normal((5, 4, 4, 8)) * np.arange(1, 9)
    guess = raw + generator.standard_normal(raw.shape)
    told = heldout(torch.from_numpy(guess).float(), torch.from_numpy(raw).float())
    flat, other = raw.reshape(-1, 8), guess.reshape(-1, 8)
    expected = metrics.r2_score(flat, other, multioutput="variance_weighted")
    assert told["heldout_r2"] == pytest.approx(expected, abs=1e-5)
    cosine = np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(flat, other, strict=True)])
    assert told["heldout_cos"] == pytest.approx(cosine, abs=1e-5)


def test_shares_of_planted_parts() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(30, 30, 16, generator=generator) * 3
    artifact = torch.randn(30, 30, 16, generator=generator) * 2
    residual = torch.randn(30, 30, 16, generator=generator)
    raw = clean + artifact + residual
    told, other = figures(torch.stack([raw, raw * 2]), torch.stack([clean, clean]), artifact[None])
    assert other["cos_raw_clean"] == pytest.approx(told["cos_raw_clean"])
    assert other["artifact_share"] == pytest.approx(told["artifact_share"] / 4)
    assert told["artifact_share"] == pytest.approx(4 / 14, abs=0.02)
    assert told["residual_share"] == pytest.approx(1 / 14, abs=0.01)
    assert told["cos_raw_clean"] == pytest.approx(3 / math.sqrt(14), abs=0.02)


def test_what_has_no_meaning_is_nan_and_no_crash() -> None:
    flat = torch.ones(2, 2, 3)
    told = figures(flat[None], flat[None], flat[None] * 0)[0]
    assert math.isnan(told["artifact_share"])
    assert math.isnan(heldout(flat, flat)["heldout_r2"])
    assert math.isnan(heldout(flat[:0], flat[:0])["heldout_cos"])
    assert "artifact_share" not in figures(flat[None])[0]
