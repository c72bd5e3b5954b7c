import numpy as np
import pytest
import torch
import torch.nn.functional as F
from planted import Plant, plant

from dvt import LstsqOptions, SolverError, ViewGroup, solve
from dvt.banded import BlockCholesky
from dvt.lstsq import solve_groups
from dvt.nodes import node_grid
from dvt.normal import Stencil, roughness


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


def dense(stencil: Stencil) -> torch.Tensor:
    """The matrix that a stencil stands for, entry by entry."""
    _, high, _, wide, _ = stencil.rows.shape
    matrix = torch.zeros(high * wide, high * wide, dtype=torch.float64)
    for row in range(high):
        for step in range(min(3, high - row)):
            block = stencil.rows[0, row, step]
            here, there = slice(row * wide, (row + 1) * wide), slice((row + step) * wide, (row + step + 1) * wide)
            matrix[here, there] = block
            matrix[there, here] = block.T
    return matrix


def test_roughness_is_the_laplacian_squared() -> None:
    squared = dense(roughness(5, 7))
    spike = torch.zeros(5, 7, dtype=torch.float64)
    spike[2, 3] = 1.0
    found = (squared @ spike.reshape(-1)).reshape(5, 7)
    assert found[2].tolist() == [0, 1, -8, 20, -8, 1, 0]  # the 13-point biharmonic stencil
    assert found[1].tolist() == [0, 0, 2, -8, 2, 0, 0]
    assert (squared @ torch.ones(35, dtype=torch.float64)).abs().max() == 0


@pytest.mark.parametrize("high", [4, 5])
def test_block_cholesky_solves_as_a_dense_solver_does(high: int) -> None:
    generator = torch.Generator().manual_seed(0)
    stencil = Stencil(roughness(high, 3).rows.clone())
    stencil.rows[:, :, 0].diagonal(dim1=-2, dim2=-1).add_(torch.rand(3, generator=generator, dtype=torch.float64))
    right = torch.rand(high * 3, 4, generator=generator, dtype=torch.float64)
    padded = torch.nn.functional.pad(right, (0, 0, 0, 3 * (high % 2)))
    found = BlockCholesky(*stencil.blocks()).solve(padded[None])[0, : high * 3]
    torch.testing.assert_close(found, torch.linalg.solve(dense(stencil), right))


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


@pytest.mark.parametrize(
    "bad",
    [
        {"nodes": 1},
        {"smooth": -1.0},
        {"rounds": -1},
        {"ridge": -1e-9},
        {"prior": -1.0},
        {"smooth": ()},
        {"nodes": (9, 1)},
    ],
)
def test_options_without_sense_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(SolverError):
        LstsqOptions(**bad)  # type: ignore[arg-type]


def test_nodes_follow_the_grid() -> None:
    assert node_grid(64, (37, 37)) == (64, 64)
    assert node_grid(64, (24, 48)) == (32, 64)
    assert node_grid(None, (37, 37), area=0.25) == (74, 74)
    assert node_grid((5, 9), (37, 37)) == (5, 9)


def test_rectangular_grids_find_the_planted_truth_too() -> None:
    tall = plant(views=128, side=24, channels=16, shape=(16, 28))
    fit = solve(tall.features, tall.places, LstsqOptions(nodes=48, smooth=0.05, rounds=4))
    assert fit.field.shape == (27, 48, 16)
    assert cosine(fit.sample(tall.places[0]), tall.clean) >= 0.97
    assert cosine(fit.artifact, tall.artifact) >= 0.999


def test_several_images_at_once_are_each_solved_for_itself() -> None:
    plants = [plant(views=24, side=9, channels=5, seed=seed) for seed in (3, 4, 5)]
    options = LstsqOptions(nodes=11, smooth=(0.01, 1.0), rounds=2)
    places = torch.stack([p.places for p in plants])
    features = torch.stack([p.features for p in plants])
    together = solve_groups([ViewGroup(features, places[:, :, :, 0, 1], places[:, :, 0, :, 0])], options)
    for one, fit in zip(plants, together, strict=True):
        alone = solve(one.features, one.places, options)
        torch.testing.assert_close(fit.field, alone.field, atol=1e-4, rtol=0)
        torch.testing.assert_close(fit.artifact, alone.artifact, atol=1e-4, rtol=0)


def test_smooth_is_chosen_by_views_kept_out() -> None:
    noisy = plant(views=32, side=12, channels=8, noise=2.0, sparse=0.0, cycles=1.0)
    sharp = plant(views=200, side=12, channels=8, noise=0.01, sparse=0.0, cycles=6.0)
    candidates = (1e-3, 10.0)
    assert solve(noisy.features, noisy.places, LstsqOptions(nodes=24, smooth=candidates)).smooth == 10.0
    assert solve(sharp.features, sharp.places, LstsqOptions(nodes=24, smooth=candidates)).smooth == 1e-3
    with pytest.raises(SolverError, match="at least 8 views"):
        solve(noisy.features[:7], noisy.places[:7], LstsqOptions(nodes=4, smooth=candidates))


def test_a_view_of_weight_zero_plays_no_part(planted: Plant) -> None:
    weights = torch.ones(129)
    weights[60:] = 0
    options = LstsqOptions(nodes=16, rounds=0)
    some = solve(planted.features, planted.places, options, weights)
    fewer = solve(planted.features[:60], planted.places[:60], options)
    torch.testing.assert_close(some.field, fewer.field, atol=1e-4, rtol=0)
    torch.testing.assert_close(some.artifact, fewer.artifact, atol=1e-4, rtol=0)


def test_a_prior_artifact_makes_few_views_suffice(planted: Plant) -> None:
    few, places = planted.features[:4], planted.places[:4]
    options = LstsqOptions(nodes=24, rounds=2)
    alone = solve(few, places, options)
    prior = planted.artifact + 0.1 * torch.randn(planted.artifact.shape, generator=torch.Generator().manual_seed(1))
    helped = solve(few, places, options, prior=prior)
    assert cosine(helped.artifact, planted.artifact) > cosine(alone.artifact, planted.artifact) + 0.01
    clean, better = alone.sample(places[0]), helped.sample(places[0])
    assert (better - planted.clean).square().mean() < (clean - planted.clean).square().mean()


def test_places_that_form_no_lattice_are_refused(planted: Plant) -> None:
    bent = planted.places.clone()
    bent[3, 2, 1, 1] += 0.1
    with pytest.raises(SolverError, match="lines of a rectangle"):
        solve(planted.features, bent, LstsqOptions(nodes=8))


def test_groups_share_the_field_and_have_an_artifact_each() -> None:
    planted = plant(views=160, side=16, channels=16, cycles=3.0)
    content = planted.features - planted.artifact
    other = 0.7 + torch.randn(8, 8, 16, generator=torch.Generator().manual_seed(0))
    first, second = slice(0, 24), slice(24, None)
    rows, columns = planted.places[None, :, :, 0, 1], planted.places[None, :, 0, :, 0]
    groups = [
        ViewGroup(planted.features[None, first], rows[:, first], columns[:, first]),
        ViewGroup(content[None, second, ::2, ::2] + other, rows[:, second, ::2], columns[:, second, ::2]),
    ]
    fit = solve_groups(groups, LstsqOptions(nodes=24, rounds=2))[0]
    alone = solve(planted.features[first], planted.places[first], LstsqOptions(nodes=24, rounds=2))
    assert cosine(fit.artifacts[0], planted.artifact) > max(0.99, cosine(alone.artifact, planted.artifact))
    assert cosine(fit.artifacts[1], other) > 0.99
    assert abs(float(fit.artifacts[1].mean()) - 0.7) < 0.05
    clean, before = fit.sample(planted.places[0]), alone.sample(planted.places[0])
    assert (clean - planted.clean).square().mean() < (before - planted.clean).square().mean()


def test_without_an_artifact_the_field_alone_is_fitted(planted: Plant) -> None:
    fit = solve(planted.features, planted.places, LstsqOptions(nodes=16, rounds=0, artifact=False))
    assert fit.artifact.abs().max() == 0
    doubled = torch.cat([planted.features, planted.features])  # the same samples twice, half as much smoothness each
    again = solve(
        doubled, torch.cat([planted.places] * 2), LstsqOptions(nodes=16, rounds=0, smooth=0.2, artifact=False)
    )
    torch.testing.assert_close(again.field, fit.field, atol=1e-4, rtol=0)
    with_g = solve(planted.features, planted.places, LstsqOptions(nodes=16, rounds=0))
    assert cosine(with_g.sample(planted.places[0]), planted.clean) > cosine(
        fit.sample(planted.places[0]), planted.clean
    )


def test_what_all_features_have_in_common_costs_no_digits(planted: Plant) -> None:
    few, places, options = planted.features[:40], planted.places[:40], LstsqOptions(nodes=24)
    plain, lifted = solve(few, places, options), solve(few + 1000, places, options)
    assert (lifted.artifact - plain.artifact).abs().max() < 2e-3  # a unit in the last place of 1000 is 6e-5
    assert (lifted.field - 1000 - plain.field).abs().max() < 2e-3
