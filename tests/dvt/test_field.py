"""The paper's solver: the original code's loss, a planted truth, the same bits twice."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from planted import plant
from torch import Tensor, nn

from dvt import SolverError
from dvt.encoding import GridOptions
from dvt.field import FieldModel, FieldOptions, field_losses
from dvt.field_fit import fit_field

GOLDEN = Path(__file__).parents[1] / "data" / "stage1_loss_c96.npz"


def cosine(a: Tensor, b: Tensor) -> float:
    return float(F.cosine_similarity(a, b, dim=-1).mean())


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


def golden_inputs(golden: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """S, G (with gradient) and the artifact's own leaf, as the golden file defines them."""
    clean = torch.sin(3 * golden["global_coords"] @ golden["field_W"] + golden["field_b"])
    artifact = golden["artifact"].clone().requires_grad_()
    places = golden["artifact_coords"][None, None]
    sampled = F.grid_sample(artifact, places, mode="bilinear", align_corners=True)[0, :, 0].T
    return clean, sampled, artifact


def test_first_half_is_the_original_codes_loss_and_gradient(golden: dict[str, Tensor]) -> None:
    clean, sampled, artifact = golden_inputs(golden)
    terms = field_losses(clean, sampled, golden["raw"])
    for name in ("patch_l2_loss", "cosine_similarity_loss", "loss"):
        torch.testing.assert_close(terms[name], golden[f"phase1.{name}"], atol=1e-5, rtol=0)
    terms["loss"].backward()
    torch.testing.assert_close(artifact.grad, golden["phase1.grad_artifact"], atol=1e-5, rtol=0)


def test_second_half_is_the_original_codes_loss(golden: dict[str, Tensor]) -> None:
    clean, sampled, _ = golden_inputs(golden)
    model = FieldModel((8, 8), 96, FieldOptions(grid=GridOptions(levels=1)), "pytorch", torch.Generator())
    state = {name.removeprefix("h."): value for name, value in golden.items() if name.startswith("h.")}
    model.residual.load_state_dict(state)
    terms = field_losses(clean, sampled, golden["raw"], model.residual(golden["raw"]))
    for name in ("patch_l2_loss", "cosine_similarity_loss", "residual_loss", "residual_sparsity_loss", "loss"):
        torch.testing.assert_close(terms[name], golden[f"phase2.{name}"], atol=1e-5, rtol=0)


def test_gradients_stop_where_the_paper_stops_them(golden: dict[str, Tensor]) -> None:
    clean, sampled, artifact = golden_inputs(golden)
    field = clean.clone().requires_grad_()
    predictor = nn.Linear(96, 96)
    field_losses(field, sampled.detach(), golden["raw"], predictor(golden["raw"]))["loss"].backward()
    assert artifact.grad is None
    own = predictor.weight.grad
    predictor.weight.grad = None
    guess = predictor(golden["raw"])
    left = golden["raw"] - clean - sampled.detach()
    (0.1 * F.mse_loss(guess, left) + 0.02 * guess.abs().mean()).backward()
    torch.testing.assert_close(own, predictor.weight.grad, atol=1e-7, rtol=1e-5)


def test_planted_truth_is_found() -> None:
    planted = plant(views=96, side=12, channels=16, cycles=3.0, rank=5)
    options = FieldOptions(grid=GridOptions(levels=4, finest=48), iterations=600, batch=1024)
    fit = fit_field(planted.features, planted.places, options)
    assert cosine(planted.raw, planted.clean) < 0.8
    assert cosine(fit.sample(planted.places[0]), planted.clean) > 0.95
    assert cosine(fit.artifact, planted.artifact) > 0.98
    assert fit.artifact.mean(dim=(0, 1)).abs().max() < 1e-5


def test_a_prior_artifact_makes_few_views_suffice() -> None:
    planted = plant(views=6, side=12, channels=16, cycles=3.0, rank=5)
    options = FieldOptions(GridOptions(levels=4, base=4, finest=16), 200, 512)
    prior = planted.artifact + 0.1 * torch.randn(planted.artifact.shape, generator=torch.Generator().manual_seed(1))
    alone = fit_field(planted.features, planted.places, options)
    helped = fit_field(planted.features, planted.places, options, prior=prior)
    assert cosine(helped.artifact, planted.artifact) > cosine(alone.artifact, planted.artifact) + 0.01
    assert cosine(helped.sample(planted.places[0]), planted.clean) > cosine(
        alone.sample(planted.places[0]), planted.clean
    )
    held = fit_field(planted.features, planted.places, replace(options, prior=1e6), prior=prior)
    torch.testing.assert_close(held.artifact, prior - prior.mean(dim=(0, 1)), atol=0.02, rtol=0)


def test_the_artifact_rests_in_the_second_half() -> None:
    planted = plant(views=8, side=6, channels=8)
    options = FieldOptions(grid=GridOptions(levels=2, finest=24), iterations=40, batch=128)
    half = fit_field(planted.features, planted.places, FieldOptions(options.grid, 40, 128, freeze=0.5))
    whole = fit_field(planted.features, planted.places, FieldOptions(options.grid, 40, 128, freeze=1.0))
    assert not torch.equal(half.artifact, whole.artifact)
    start = FieldModel((6, 6), 8, options, "pytorch", torch.Generator().manual_seed(0)).residual[0].weight
    assert torch.equal(whole.model.residual[0].weight, start)
    assert not torch.equal(half.model.residual[0].weight, start)


def test_the_same_seed_gives_the_same_bits() -> None:
    planted = plant(views=8, side=6, channels=8)
    options = FieldOptions(grid=GridOptions(levels=3, finest=48), iterations=30, batch=256)
    first, again, other = (fit_field(planted.features, planted.places, options, seed) for seed in (1, 1, 2))
    places = planted.places[0]
    assert torch.equal(first.sample(places), again.sample(places))
    assert torch.equal(first.artifact, again.artifact)
    assert not torch.equal(first.artifact, other.artifact)


def test_rates_rise_then_fall_along_a_cosine() -> None:
    rates = FieldOptions(iterations=1000).rates().tolist()
    assert rates[0] == 0
    assert rates[50] == pytest.approx(0.005)
    assert rates[100] == pytest.approx(0.01)
    assert rates[550] == pytest.approx((0.01 + 0.001) / 2)
    assert rates[-1] == pytest.approx(0.001, rel=1e-3)


def test_faithful_is_the_papers_setting() -> None:
    options = FieldOptions.faithful()
    assert (options.iterations, options.batch, options.grid.levels, options.grid.finest) == (20_000, 2048, 16, 1024)
    assert options.decay == pytest.approx(1e-5 / 1024)


def test_what_does_not_stay_finite_is_an_error() -> None:
    planted = plant(views=4, side=4, channels=4)
    with pytest.raises(SolverError, match="finite"):
        fit_field(planted.features * float("nan"), planted.places, FieldOptions(iterations=4, batch=16))
    with pytest.raises(SolverError, match="two iterations"):
        FieldOptions(iterations=1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_step_is_the_eager_step_and_the_cpus() -> None:
    planted = plant(views=16, side=8, channels=16)
    options = FieldOptions(grid=GridOptions(levels=4, finest=48), iterations=200, batch=512)
    here = fit_field(planted.features, planted.places, options)
    on_gpu = planted.features.cuda(), planted.places.cuda()
    replayed, eager = (fit_field(*on_gpu, options, graphs=graphs) for graphs in (True, False))
    assert torch.equal(replayed.artifact, eager.artifact)
    assert cosine(replayed.artifact.cpu(), here.artifact) > 0.999
    assert cosine(replayed.sample(on_gpu[1][0]).cpu(), here.sample(planted.places[0])) > 0.999


def test_the_grid_follows_what_views_can_tell() -> None:
    """Twice the patches of a mean crop over the whole image: 37 of them over crops of 0.3 of its area lie 68 to a side."""
    settled = FieldOptions().settled((37, 37), 0.3).grid
    assert settled is not None
    assert settled.finest == pytest.approx(2 * 37 / 0.3**0.5, abs=2)
    rectangular = FieldOptions().settled((16, 32), 0.3).grid
    assert rectangular is not None
    assert rectangular.finest == pytest.approx(2 * 32 / 0.3**0.5, abs=2)
    own = GridOptions(levels=3, finest=48)
    assert FieldOptions(grid=own).settled((37, 37)).grid == own
    assert FieldOptions.faithful().settled((37, 37)).grid == GridOptions()
