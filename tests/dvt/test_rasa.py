"""Method rasa: planted directions of row and column go, what is orthogonal to them stays; position-mean beside it."""

import hashlib
import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from torch import Tensor

from dvt import Backbone, PositionMeanDecomposer, RasaDecomposer, RasaOptions, SolverError, fit_rasa, position_mean

GRID, WIDTH = (4, 6), 192
IMAGES = [np.random.default_rng(n).integers(0, 256, (50, 70 + n, 3), dtype=np.uint8) for n in range(3)]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone.create("vit_tiny_patch16_224", weights="random", input_size=(64, 96), device="cpu")


def planted(images: int = 60, width: int = 24) -> tuple[Tensor, Tensor, Tensor]:
    """Maps = content in the last channels + row · u + column · v in the first four + a constant; (maps, content, [u, v])."""
    generator = torch.Generator().manual_seed(0)
    content = torch.randn(images, *GRID, width, generator=generator)
    content[..., :4] = 0
    along = torch.zeros(2, width)
    along[:, :4] = torch.randn(2, 4, generator=generator)
    return content + 3 * places() @ along + 7, content, along


def places() -> Tensor:
    rows, columns = torch.meshgrid(torch.linspace(-0.5, 0.5, 4), torch.linspace(-0.5, 0.5, 6), indexing="ij")
    return torch.stack([rows, columns], dim=-1)


def told(maps: Tensor) -> float:
    """R² of scikit-learn's least squares from features to row and column, fitted and judged on the same patches."""
    where = places().repeat(len(maps), 1, 1, 1).flatten(0, 2).numpy()
    features = maps.flatten(0, 2).numpy()
    return float(LinearRegression().fit(features, where).score(features, where))


def test_planted_directions_are_found_and_content_is_left_alone() -> None:
    maps, content, along = planted()
    found, mean = fit_rasa(iter(maps.split(7)))
    assert found.shape == (2, 24)  # one round, and nothing is left to tell
    torch.testing.assert_close(found @ found.T, torch.eye(2), atol=1e-5, rtol=0)
    kept = along - along @ found.T @ found
    assert float(kept.norm() / along.norm()) < 0.02
    torch.testing.assert_close(mean, maps.mean(dim=0), atol=1e-5, rtol=0)
    centre = mean.mean(dim=(0, 1))
    clean = maps - (maps - centre) @ found.T @ found
    assert told(maps) > 0.99
    assert told(clean) < 0.05
    assert float((clean - content - 7).abs().mean()) < 0.05
    assert float((clean[..., 4:] - maps[..., 4:]).abs().mean()) < 0.03


def test_a_round_takes_away_the_plane_of_the_least_squares_solution() -> None:
    generator = torch.Generator().manual_seed(1)
    mix = torch.randn(12, 12, generator=generator)
    maps = (torch.randn(40, *GRID, 12, generator=generator) + places() @ torch.randn(2, 12, generator=generator)) @ mix
    found, _ = fit_rasa([maps], RasaOptions(rounds=1, ridge=1e-9, enough=0.0))
    where = places().repeat(40, 1, 1, 1).flatten(0, 2).numpy()
    weights = torch.from_numpy(LinearRegression().fit(maps.flatten(0, 2).numpy(), where).coef_).float()
    torch.testing.assert_close(weights @ found.T @ found, weights, atol=2e-3, rtol=2e-3)
    scores = []
    for rounds in (1, 2, 4):
        along, mean = fit_rasa([maps], RasaOptions(rounds=rounds, enough=0.0))
        assert along.shape == (2 * rounds, 12)
        torch.testing.assert_close(along @ along.T, torch.eye(2 * rounds), atol=1e-5, rtol=0)
        centre = mean.mean(dim=(0, 1))
        scores.append(told(maps - (maps - centre) @ along.T @ along))
    assert told(maps) > scores[0] > scores[1] > scores[2]


def test_where_positions_tell_nothing_no_direction_is_taken() -> None:
    maps = torch.randn(400, *GRID, 8, generator=torch.Generator().manual_seed(2))
    assert fit_rasa([maps])[0].shape == (0, 8)
    row = torch.randn(50, 1, 6, 8, generator=torch.Generator().manual_seed(3)) + 3 * places()[:1, :, 1:] * torch.ones(8)
    assert fit_rasa([row], RasaOptions(rounds=1))[0].shape == (1, 8)  # a single row: only columns are told
    with pytest.raises(SolverError, match="no image"):
        fit_rasa([])
    with pytest.raises(SolverError, match="at least one round"):
        RasaOptions(rounds=0)


def test_the_method_projects_and_its_artifact_is_the_mean_of_what_goes(backbone: Backbone) -> None:
    generator = torch.Generator().manual_seed(4)
    along = torch.linalg.qr(torch.randn(WIDTH, 6, generator=generator))[0].T
    mean = torch.randn(*GRID, WIDTH, generator=generator)
    method = RasaDecomposer(backbone, along, mean, 2)
    found = method.decompose([method.prepare(image, "a") for image in IMAGES])
    centre = mean.mean(dim=(0, 1))
    for one in found:
        assert one.clean is not None
        assert one.artifact is not None
        torch.testing.assert_close((one.clean - centre) @ along.T, torch.zeros(*GRID, 6), atol=1e-4, rtol=0)
        assert torch.equal(one.raw, one.raw.half().float())
        torch.testing.assert_close(one.artifact, (mean - centre) @ along.T @ along, atol=1e-5, rtol=0)
        assert float(one.artifact.mean(dim=(0, 1)).abs().max()) < 1e-5
        torch.testing.assert_close(one.clean + one.artifact + one.residual, one.raw, atol=1e-5, rtol=0)
    recipe = method.recipe()
    assert json.loads(json.dumps(recipe)) == recipe
    packed = np.concatenate([along.numpy(), mean.flatten(0, 1).numpy()]).astype("<f4")
    assert recipe["method"]["fit"] == hashlib.sha256(packed.tobytes()).hexdigest()
    assert (recipe["method"]["name"], recipe["method"]["directions"]) == ("rasa", 6)


def test_position_mean_takes_the_planted_artifact_off_exactly(backbone: Backbone) -> None:
    generator = torch.Generator().manual_seed(5)
    artifact = torch.randn(*GRID, WIDTH, generator=generator)
    artifact -= artifact.mean(dim=(0, 1))
    pair = torch.randn(30, *GRID, WIDTH, generator=generator)
    content = torch.cat([pair, -pair])  # of which positions have the same mean, so that nothing hides the artifact
    raw = content + artifact + 5
    found = position_mean((batch, 0 * batch) for batch in raw.split(9))
    torch.testing.assert_close(found, artifact, atol=1e-5, rtol=0)
    method = PositionMeanDecomposer(backbone, found)
    torch.testing.assert_close(method.clean(raw, []), content + 5, atol=1e-4, rtol=0)
    (one, *_) = method.decompose([method.prepare(image, "a") for image in IMAGES])
    assert one.clean is not None
    torch.testing.assert_close(one.clean, one.raw - artifact, atol=1e-4, rtol=0)
    assert float(one.residual.abs().max()) < 1e-5
    data = found.numpy().astype("<f4").tobytes()
    assert method.recipe()["method"] == {
        "name": "position-mean",
        "raw": "float16",
        "artifact": hashlib.sha256(data).hexdigest(),
    }
    with pytest.raises(SolverError, match=r"shape \(2, 2, 192\), not \(4, 6, 192\)"):
        PositionMeanDecomposer(backbone, torch.zeros(2, 2, WIDTH))
