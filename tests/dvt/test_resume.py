"""A training's state taken and given back: the same bits afterwards as of a run that nobody disturbed."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from dvt import Denoiser, DenoiserError, Progress, Trainer, TrainOptions, WeightsError, read_state

CPU = torch.device("cpu")
Pair = tuple[Tensor, Tensor]
OPTIONS = TrainOptions(steps=14, batch=4, rate=0.02, validate_every=4, warmup=0.4)


def batches(seed: int, first: int, last: int) -> Iterator[Pair]:
    """Batch n of a run, for n in [first, last), whatever came before."""
    for number in range(first, last):
        generator = torch.Generator().manual_seed(1000 * seed + number)
        clean = torch.randn(4, 3, 5, 64, generator=generator)
        yield clean + torch.linspace(-1, 1, 15).reshape(1, 3, 5, 1), clean


def unseen() -> list[Pair]:
    return list(batches(9, 0, 2))


def made(options: TrainOptions, seed: int = 0) -> Trainer:
    grid = (3, 5) if options.position else None
    return Trainer(Denoiser.fresh(64, grid, options.blocks, seed), options, CPU)


def go_on(trainer: Trainer, stop: int = OPTIONS.steps) -> list[Progress]:
    return list(trainer.run(batches(1, trainer.step, stop), unseen()))


def weights(trainer: Trainer) -> dict[str, Tensor]:
    every = {f"denoiser.{name}": value for name, value in trainer.denoiser.state_dict().items()}
    every |= {f"kept.{name}": value for name, value in trainer.kept.state_dict().items()}
    return every | {f"best.{name}": value for name, value in trainer.result().state_dict().items()}


@pytest.mark.parametrize("taken", [0, 3, 5, 8, 14])
@pytest.mark.parametrize(
    "chosen",
    [{}, {"ema": 0.9}, {"blocks": 2, "position": False}],
    ids=["plain", "averaged", "two blocks, no position"],
)
def test_a_state_taken_and_given_back_goes_on_to_the_same_bits(
    chosen: dict[str, Any], taken: int, tmp_path: Path
) -> None:
    options = replace(OPTIONS, **chosen)
    undisturbed, stopped, resumed = made(options), made(options), made(options, seed=5)
    whole = go_on(undisturbed)
    go_on(stopped, taken)
    assert stopped.step == taken
    (tmp_path / "state.safetensors").write_bytes(stopped.to_bytes())
    rates: list[float] = []
    resumed.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    resumed.restore(*read_state(tmp_path / "state.safetensors"))
    assert (resumed.step, resumed.best, resumed.stale) == (taken, stopped.best, stopped.stale)
    rest = go_on(resumed)
    assert rest == whole[taken:]
    assert rates == [step.rate for step in whole[taken:]]
    expected, found = weights(undisturbed), weights(resumed)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert resumed.to_bytes() == undisturbed.to_bytes()
    assert resumed.result().digest() == undisturbed.result().digest()
    assert resumed.result().digest() != stopped.denoiser.digest() or taken == OPTIONS.steps


def test_taking_the_state_disturbs_nothing() -> None:
    plain, looked_at = made(OPTIONS), made(OPTIONS)
    expected = go_on(plain)
    found = []
    for step in looked_at.run(batches(1, 0, OPTIONS.steps), unseen()):
        looked_at.to_bytes()
        found.append(step)
    assert found == expected
    assert looked_at.to_bytes() == plain.to_bytes()


def test_at_a_validation_the_state_is_that_of_the_step_told() -> None:
    """Losses are told a step late, but a checkpoint is written where a validation is told."""
    trainer = made(OPTIONS)
    steps = [(step.step, trainer.step) for step in trainer.run(batches(1, 0, 14), unseen()) if step.validation]
    assert steps == [(4, 4), (8, 8), (12, 12), (14, 14)]


def test_patience_and_the_best_outlive_a_stop(tmp_path: Path) -> None:
    options = replace(OPTIONS, rate=0.0, final_rate=0.0, validate_every=2, patience=3)
    first, second = made(options), made(options)
    go_on(first, 6)
    assert (first.stale, first.finished) == (2, False)
    (tmp_path / "state.safetensors").write_bytes(first.to_bytes())
    second.restore(*read_state(tmp_path / "state.safetensors"))
    assert [step.step for step in go_on(second)] == [7, 8]
    assert second.finished
    assert second.best == first.best < math.inf


def test_the_file_holds_what_the_run_holds(tmp_path: Path) -> None:
    trainer = made(replace(OPTIONS, ema=0.9))
    go_on(trainer, 5)
    (tmp_path / "state.safetensors").write_bytes(trainer.to_bytes())
    with safe_open(tmp_path / "state.safetensors", framework="pt") as file:
        told = json.loads(file.metadata()["featstore"])
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert (told["step"], told["stale"], told["options"]["ema"]) == (5, 0, 0.9)
    names = list(dict(trainer.denoiser.named_parameters()))
    for number, name in enumerate(names):
        value = trainer.denoiser.get_parameter(name)
        assert torch.equal(stored[f"model.{name}"], value)
        moments = trainer.optimizer.state[value]
        assert float(stored[f"adam.{number}.step"]) == 5
        assert torch.equal(stored[f"adam.{number}.exp_avg"], moments["exp_avg"])
        assert torch.equal(stored[f"adam.{number}.exp_avg_sq"], moments["exp_avg_sq"])
    assert float(stored["average.n_averaged"]) == 5


@pytest.mark.parametrize("other", [{"rate": 0.01}, {"steps": 15}, {"ema": 0.9}, {"seed": 1}, {"dtype": "bfloat16"}])
def test_a_state_of_other_options_is_refused(other: dict[str, Any], tmp_path: Path) -> None:
    trainer = made(OPTIONS)
    go_on(trainer, 2)
    (tmp_path / "state.safetensors").write_bytes(trainer.to_bytes())
    another = made(replace(OPTIONS, **other))
    before = weights(another)
    with pytest.raises(DenoiserError, match="run with other options: begin anew with --restart"):
        another.restore(*read_state(tmp_path / "state.safetensors"))
    assert another.step == 0
    assert all(torch.equal(value, before[name]) for name, value in weights(another).items())


def test_a_state_cut_short_is_told(tmp_path: Path) -> None:
    data = made(OPTIONS).to_bytes()
    (tmp_path / "state.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match=r"state.safetensors cannot be read as safetensors"):
        read_state(tmp_path / "state.safetensors")
