"""Training the denoiser: loss and rate by their formulas, a planted artifact unlearned, what is kept and when it stops."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dvt import Denoiser, DenoiserError, Trainer, TrainOptions
from dvt.training import denoising_loss, rate_at

CPU = torch.device("cpu")
GRID, WIDTH = (4, 4), 64
Pair = tuple[Tensor, Tensor]


class Planted:
    """Images whose clean features are of rank 4, with one fixed map of positions on raw."""

    def __init__(self, spread: float = 1.5) -> None:
        generator = torch.Generator().manual_seed(11)
        self.mixing = torch.randn(4, WIDTH, generator=generator) / 2
        self.artifact = spread * torch.randn(*GRID, WIDTH, generator=generator)

    def batches(self, seed: int, size: int, count: int) -> Iterator[Pair]:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(count):
            clean = torch.randn(size, *GRID, 4, generator=generator) @ self.mixing
            yield clean + self.artifact, clean


def fresh(seed: int = 0, position: bool = True) -> Denoiser:
    return Denoiser.fresh(WIDTH, GRID if position else None, seed=seed)


def options(**chosen: Any) -> TrainOptions:
    return TrainOptions(**{"steps": 12, "batch": 4, "rate": 0.02, "validate_every": 4} | chosen)


def held(count: int = 8) -> list[Pair]:
    return list(Planted().batches(999, 4, count))


def test_the_loss_is_that_of_the_plain_formulas() -> None:
    generator = np.random.default_rng(0)
    found, clean = (generator.standard_normal((3, 2, 5, 8)).astype(np.float32) for _ in range(2))
    mse, cosine = denoising_loss(torch.from_numpy(found), torch.from_numpy(clean))
    assert float(mse) == pytest.approx(sum((a - b) ** 2 for a, b in zip(found.flat, clean.flat, strict=True)) / 240)
    pairs = list(zip(found.reshape(-1, 8), clean.reshape(-1, 8), strict=True))
    cosines = [sum(a * b) / math.sqrt(sum(a * a) * sum(b * b)) for a, b in pairs]
    assert float(cosine) == pytest.approx(sum(cosines) / 30, abs=1e-6)
    exact = denoising_loss(torch.from_numpy(clean), torch.from_numpy(clean))
    assert (float(exact[0]), float(exact[1])) == pytest.approx((0, 1))


@pytest.mark.parametrize("batch", [64, 256, 1024])
def test_the_rate_rises_and_falls_as_written(batch: int) -> None:
    chosen = TrainOptions(steps=1000, batch=batch, rate=3e-4, final_rate=1e-6, warmup=0.2)
    top = 3e-4 * {64: 0.5, 256: 1, 1024: 2}[batch]
    assert rate_at(0, chosen) == 0
    assert rate_at(100, chosen) == pytest.approx(top / 2)
    assert rate_at(200, chosen) == pytest.approx(top)
    assert rate_at(400, chosen) == pytest.approx(1e-6 + (top - 1e-6) * (2 + math.sqrt(2)) / 4)
    assert rate_at(600, chosen) == pytest.approx((top + 1e-6) / 2)
    assert rate_at(999, chosen) == pytest.approx(1e-6 + (top - 1e-6) * math.sin(math.pi / 1600) ** 2)
    assert rate_at(1000, chosen) == pytest.approx(1e-6)
    rates = [rate_at(step, chosen) for step in range(1000)]
    assert rates[:201] == sorted(rates[:201])
    assert rates[200:] == sorted(rates[200:], reverse=True)
    assert rate_at(0, replace(chosen, warmup=0.0)) == pytest.approx(top)


def test_each_step_is_taken_and_told_at_its_rate() -> None:
    chosen = options(steps=10, warmup=0.3)
    trainer = Trainer(fresh(), chosen, CPU)
    used: list[float] = []
    trainer.optimizer.register_step_pre_hook(lambda optimizer, *_: used.append(optimizer.param_groups[0]["lr"]))
    steps = list(trainer.run(Planted().batches(1, 4, 99), held(1)))
    top = 0.02 * math.sqrt(4 / 256)
    falling = [1e-6 + (top - 1e-6) * (1 + math.cos(math.pi * n / 7)) / 2 for n in range(7)]
    assert used == pytest.approx([0, top / 3, top * 2 / 3, *falling])
    assert [step.rate for step in steps] == used
    assert [step.step for step in steps] == list(range(1, 11))
    assert [step.step for step in steps if step.validation] == [4, 8, 10]
    row = steps[3].row()
    assert (row["step"], row["val_images"], "validation" in row) == (4, 4, False)
    assert set(steps[4].row()) == {"step", "loss", "mse", "cosine", "rate"}
    assert trainer.finished
    assert list(trainer.run(Planted().batches(1, 4, 3), held(1))) == []


@pytest.mark.parametrize("ema", [0.0, 0.95])
def test_a_planted_artifact_is_unlearned_also_on_images_never_seen(ema: float) -> None:
    chosen = options(steps=250, batch=16, validate_every=250, ema=ema)
    trainer = Trainer(fresh(), chosen, CPU)
    steps = list(trainer.run(Planted().batches(1, 16, 250), held(16)))
    judged = steps[-1].validation
    assert judged is not None
    assert judged.images == 64
    assert judged.raw_mse == pytest.approx(float(Planted().artifact.square().mean()), rel=1e-4)
    assert judged.loss < 0.1 * (judged.raw_mse + 1 - judged.raw_cosine)
    assert judged.cosine > 0.97 > 0.7 > judged.raw_cosine
    assert judged.raw_position > 0.5
    assert abs(judged.position - judged.clean_position) < 0.02
    assert steps[-1].loss < 0.1 * steps[0].loss
    raw, clean = held(1)[0]
    with torch.inference_mode():
        assert float(F.mse_loss(trainer.result()(raw), clean)) == pytest.approx(judged.mse, rel=0.2)


def test_a_step_is_that_of_adamw_written_out() -> None:
    """Decoupled decay, moments corrected for their start; each step from the weights that the one before left."""
    chosen = options(steps=5, warmup=0.0, decay=0.1)
    denoiser, shadow = fresh(), fresh()
    trainer = Trainer(denoiser, chosen, CPU)
    moments = {name: (torch.zeros_like(v), torch.zeros_like(v)) for name, v in shadow.named_parameters()}
    for number, (raw, clean) in enumerate(Planted().batches(1, 4, 3), start=1):
        shadow.load_state_dict(denoiser.state_dict())
        found = shadow(raw)
        loss = F.mse_loss(found, clean) + 1 - F.cosine_similarity(found, clean, dim=-1).mean()
        gradients = torch.autograd.grad(loss, list(shadow.parameters()))
        rate = rate_at(number - 1, chosen)
        with torch.no_grad():
            for (name, value), gradient in zip(shadow.named_parameters(), gradients, strict=True):
                first, second = moments[name]
                first.mul_(0.9).add_(0.1 * gradient)
                second.mul_(0.999).add_(0.001 * gradient**2)
                up, down = first / (1 - 0.9**number), (second / (1 - 0.999**number)).sqrt() + 1e-8
                value.sub_(rate * 0.1 * value).sub_(rate * up / down)
        losses = trainer.learn(raw, clean)
        assert float(losses[0] + 1 - losses[1]) == pytest.approx(float(loss.detach()), rel=1e-5)
        for name, value in denoiser.named_parameters():
            torch.testing.assert_close(value, shadow.get_parameter(name), atol=1e-6, rtol=1e-5)
    assert not torch.equal(denoiser.denoiser.mlp.fc1.weight, fresh().denoiser.mlp.fc1.weight)


def test_the_average_is_that_worked_out_by_hand() -> None:
    trainer = Trainer(fresh(), options(ema=0.8), CPU)
    seen: list[dict[str, Tensor]] = []
    for raw, clean in Planted().batches(1, 4, 5):
        trainer.learn(raw, clean)
        seen.append({name: value.detach().clone() for name, value in trainer.denoiser.named_parameters()})
    for name, value in trainer.kept.named_parameters():
        expected = seen[0][name].double()
        for later in seen[1:]:
            expected = 0.8 * expected + 0.2 * later[name].double()
        torch.testing.assert_close(value, expected.float(), atol=1e-6, rtol=1e-5)
    assert not torch.equal(trainer.kept.get_parameter("pos_embed"), seen[-1]["pos_embed"])
    assert Trainer(fresh(), options(), CPU).kept.state_dict().keys() == trainer.kept.state_dict().keys()


def test_it_stops_after_validations_without_gain() -> None:
    still = options(steps=50, rate=0.0, final_rate=0.0, validate_every=2, patience=3)
    trainer = Trainer(fresh(), still, CPU)
    steps = list(trainer.run(Planted().batches(1, 4, 99), held(1)))
    assert [step.step for step in steps if step.validation] == [2, 4, 6, 8]
    assert steps[-1].step == trainer.step == 8
    assert trainer.finished
    patient = Trainer(fresh(), replace(still, patience=0), CPU)
    assert len(list(patient.run(Planted().batches(1, 4, 99), held(1)))) == 50


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_the_weights_of_the_best_validation_are_kept(ema: float) -> None:
    """First the pairs are those of the images held out, then others that lead astray."""
    trainer = Trainer(fresh(), options(steps=40, warmup=0.0, validate_every=5, ema=ema), CPU)
    good, astray = Planted().batches(1, 4, 20), ((raw, -clean) for raw, clean in Planted().batches(2, 4, 20))
    losses, weights = [], []
    for step in trainer.run((pair for part in (good, astray) for pair in part), held(2)):
        if step.validation:
            losses.append(step.validation.loss)
            weights.append({name: value.clone() for name, value in trainer.kept.state_dict().items()})
    best = int(np.argmin(losses))
    assert len(losses) == 8
    assert 1 < best < 6
    result = trainer.result()
    assert not result.training
    assert all(torch.equal(value, weights[best][name]) for name, value in result.state_dict().items())
    assert any(not torch.equal(value, weights[-1][name]) for name, value in result.state_dict().items())
    with torch.inference_mode():
        found = [result(raw) for raw, _ in held(2)]
    clean = torch.cat([pair[1] for pair in held(2)])
    loss = F.mse_loss(torch.cat(found), clean) + 1 - F.cosine_similarity(torch.cat(found), clean, dim=-1).mean()
    assert float(loss) == pytest.approx(min(losses), rel=1e-5)


@pytest.mark.parametrize("after", [0, 3], ids=["the last step", "steps after it"])
@pytest.mark.parametrize("which", ["raw", "clean"])
def test_a_loss_that_is_not_finite_stops_it(which: str, after: int) -> None:
    def batches() -> Iterator[Pair]:
        for number, (raw, clean) in enumerate(Planted().batches(1, 4, 3 + after), start=1):
            if number == 3:
                (raw if which == "raw" else clean)[1, 2, 3, 4] = math.nan if after else math.inf
            yield raw, clean

    told = []
    with pytest.raises(DenoiserError, match=r"the loss of step 3 is not finite: .*--rate") as caught:
        for step in Trainer(fresh(), options(), CPU).run(batches(), held(1)):
            told.append(step.step)
    assert told == [1, 2]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"steps": 0}, "one or more"),
        ({"batch": 0}, "one or more"),
        ({"validate_every": 0}, "one or more"),
        ({"ema": 1.0}, r"in \[0, 1\)"),
        ({"warmup": 1.0}, r"in \[0, 1\)"),
        ({"warmup": -0.1}, r"in \[0, 1\)"),
    ],
)
def test_options_without_meaning_are_told(chosen: dict[str, Any], words: str) -> None:
    with pytest.raises(DenoiserError, match=words):
        options(**chosen)
