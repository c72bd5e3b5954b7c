import numpy as np
import pytest
import torch
import torch.nn.functional as F
from planted import Plant, plant

from dvt import LstsqOptions, SolverError, solve
from dvt.banded import BlockCholesky
from dvt.lstsq import roughness


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(F.cosine_similarity(a, b, dim=-1).mean())


@pytest.fixture(scope="module")
def planted() -> Plant:
    return plant(views=128, side=24, channels=64)


def test_planted_truth_is_found_where_raw_is_far_from_it(planted: Plant) -> None:
    fit = solve(planted.features, planted.places, LstsqOptions(nodes=48, smooth=0.05, rounds=4))
    clean = fit.sample(planted.places[0])
    assert cosine(planted.raw, planted.clean) < 0.8
    assert cosine(clean, planted.clean) >= 0.98
    assert cosine(fit.artifact, planted.artifact) >= 0.999


def test_reweighting_is_what_withstands_the_sparse_residual(planted: Plant) -> None:
    errors = []
    for rounds in (0, 4):
        fit = solve(planted.features, planted.places, LstsqOptions(nodes=48, smooth=0.05, rounds=rounds))
        errors.append(float((fit.artifact - planted.artifact).square().mean()))
    assert errors[1] < 0.5 * errors[0]


def test_gauge_the_artifact_has_zero_mean_and_the_sum_keeps_it(planted: Plant) -> None:
    shifted = planted.features + 3.0
    plain = solve(planted.features, planted.places, LstsqOptions(nodes=16))
    moved = solve(shifted, planted.places, LstsqOptions(nodes=16))
    assert plain.artifact.mean(dim=(0, 1)).abs().max() < 1e-5
    torch.testing.assert_close(moved.artifact, plain.artifact, atol=2e-3, rtol=0)
    torch.testing.assert_close(moved.field, plain.field + 3.0, atol=2e-3, rtol=0)


def dense_reference(planted: Plant, nodes: int, smooth: float, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Both unknowns in one dense system, built sample by sample from the definition, in float64."""
    views, height, width, channels = planted.features.shape
    positions, count = height * width, nodes * nodes
    rows = []
    for place, position in zip(
        planted.places.reshape(-1, 2).double().numpy(), list(range(positions)) * views, strict=True
    ):
        row = np.zeros(count + positions)
        x, y = place * (nodes - 1)
        column, line = min(int(x), nodes - 2), min(int(y), nodes - 2)
        for i, wy in ((line, 1 - (y - line)), (line + 1, y - line)):
            for j, wx in ((column, 1 - (x - column)), (column + 1, x - column)):
                row[i * nodes + j] += wy * wx
        row[count + position] = 1
        rows.append(row)
    design = np.array(rows)
    system = design.T @ design
    laplacian = np.zeros((count, count))
    for i in range(nodes):
        for j in range(nodes):
            for k, m in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if 0 <= k < nodes and 0 <= m < nodes:
                    laplacian[i * nodes + j, i * nodes + j] += 1
                    laplacian[i * nodes + j, k * nodes + m] -= 1
    system[:count, :count] += smooth * laplacian.T @ laplacian
    system[:count, :count] += ridge * np.trace(system[:count, :count]) / count * np.eye(count)
    right = design.T @ planted.features.reshape(-1, channels).double().numpy()
    solution = np.linalg.lstsq(system, right, rcond=1e-12)[0]
    clean, artifact = solution[:count], solution[count:]
    mean = artifact.mean(axis=0)
    return clean + mean, artifact - mean


def test_elimination_in_blocks_gives_what_one_dense_system_gives() -> None:
    small = plant(views=20, side=5, channels=3, seed=1)
    fit = solve(small.features, small.places, LstsqOptions(nodes=8, smooth=0.3, ridge=1e-9, rounds=0))
    clean, artifact = dense_reference(small, nodes=8, smooth=0.3, ridge=1e-9)
    np.testing.assert_allclose(fit.artifact.reshape(-1, 3).numpy(), artifact, atol=1e-4)
    np.testing.assert_allclose(fit.field.reshape(-1, 3).numpy(), clean, atol=1e-4)


def test_roughness_is_the_laplacian_squared() -> None:
    grid = torch.zeros(5, 5, dtype=torch.float64)
    grid[2, 2] = 1.0
    squared = (roughness(5) @ grid.reshape(-1)).reshape(5, 5)
    assert squared[2].tolist() == [1, -8, 20, -8, 1]  # the 13-point biharmonic stencil
    assert squared[1].tolist() == [0, 2, -8, 2, 0]
    torch.testing.assert_close(roughness(5) @ torch.ones(25, dtype=torch.float64), torch.zeros(25, dtype=torch.float64))


def test_block_cholesky_solves_as_a_dense_solver_does() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.zeros(11, 11, dtype=torch.float64)
    for start in range(0, 11, 3):
        span = slice(start, min(start + 6, 11))
        part = torch.rand(11, 11, generator=generator, dtype=torch.float64)[span, span]
        matrix[span, span] += part @ part.T
    matrix += torch.eye(11, dtype=torch.float64)
    right = torch.rand(11, 4, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(BlockCholesky(matrix, 3).solve(right), torch.linalg.solve(matrix, right))


def test_sampling_a_linear_field_is_exact_between_nodes(planted: Plant) -> None:
    fit = solve(planted.features, planted.places, LstsqOptions(nodes=4, rounds=0))
    line = torch.linspace(0, 1, 4)
    plane = torch.stack([line.expand(4, 4), line[:, None].expand(4, 4)], dim=-1)
    flat = type(fit)(plane, fit.artifact[..., :2])
    places = torch.rand(50, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(flat.sample(places), places)


def test_the_same_input_gives_the_same_bits(planted: Plant) -> None:
    first, second = (solve(planted.features, planted.places, LstsqOptions(nodes=24)) for _ in range(2))
    assert torch.equal(first.field, second.field)
    assert torch.equal(first.artifact, second.artifact)


def test_what_views_cannot_determine_is_an_error(planted: Plant) -> None:
    with pytest.raises(SolverError, match="give more views"):
        solve(planted.features[:2], planted.places[:2], LstsqOptions(nodes=48, smooth=0.0, ridge=0.0))
    with pytest.raises(SolverError, match=r"finite|determine"):
        solve(planted.features[:4] * float("nan"), planted.places[:4], LstsqOptions(nodes=4, rounds=0))


@pytest.mark.parametrize("bad", [{"nodes": 1}, {"smooth": -1.0}, {"rounds": -1}, {"ridge": -1e-9}])
def test_options_without_sense_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(SolverError):
        LstsqOptions(**bad)  # type: ignore[arg-type]
