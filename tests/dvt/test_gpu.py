"""Both stages on a CUDA device against the CPU: the same features to a stated tolerance, the same bits twice, memory kept."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load

from dvt import (
    Backbone,
    Decomposition,
    Denoiser,
    FieldOptions,
    GridOptions,
    LstsqOptions,
    Stage1Decomposer,
    Stage2Decomposer,
    Trainer,
    TrainOptions,
    ViewOptions,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
TOLERANCE = 0.999  # mean cosine across devices, float32 on both
FIELD = FieldOptions(GridOptions(levels=4, finest=48), iterations=200, batch=512)


def photographs(count: int) -> list[NDArray[np.uint8]]:
    generator = np.random.default_rng(0)
    coarse = torch.from_numpy(generator.random((count, 3, 9, 12))).float()
    large = F.interpolate(coarse, (150, 200), mode="bicubic").clamp(0, 1) * 255
    return list(large.permute(0, 2, 3, 1).to(torch.uint8).numpy())


def run(
    device: str, solver: LstsqOptions | FieldOptions, count: int = 2, dtype: str = "float32"
) -> list[Decomposition]:
    backbone = Backbone.create("test_vit", weights="random", input_size=(160, 160), device=device, dtype=dtype)
    decomposer = Stage1Decomposer(backbone, ViewOptions(views=24, holdout=4), solver)
    return decomposer.decompose([decomposer.prepare(p, str(i)) for i, p in enumerate(photographs(count))])


def cosine(a: torch.Tensor | None, b: torch.Tensor | None) -> float:
    assert a is not None
    assert b is not None
    return float(F.cosine_similarity(a, b, dim=-1).mean())


@pytest.mark.parametrize(
    "solver", [LstsqOptions(), LstsqOptions(smooth=(0.01, 1.0)), FIELD], ids=["lstsq", "auto", "field"]
)
def test_both_devices_agree(solver: LstsqOptions | FieldOptions) -> None:
    for here, there in zip(run("cpu", solver), run("cuda", solver), strict=True):
        for name in ("raw", "clean", "artifact"):
            assert cosine(getattr(here, name), getattr(there, name)) > TOLERANCE, name


@pytest.mark.parametrize("solver", [LstsqOptions(), FIELD], ids=["lstsq", "field"])
def test_the_same_device_gives_the_same_bits_whatever_comes_with_an_image(solver: LstsqOptions | FieldOptions) -> None:
    many, alone = run("cuda", solver, count=7), run("cuda", solver, count=1)
    assert torch.equal(torch.as_tensor(many[0].clean), torch.as_tensor(alone[0].clean))
    assert torch.equal(torch.as_tensor(many[0].artifact), torch.as_tensor(alone[0].artifact))


def test_bfloat16_forwards_stay_near() -> None:
    for exact, quick in zip(run("cpu", LstsqOptions()), run("cuda", LstsqOptions(), dtype="bfloat16"), strict=True):
        assert cosine(exact.clean, quick.clean) > 0.98


def test_memory_stays_below_the_estimate() -> None:
    backbone = Backbone.create("dinov2_s", weights="random", input_size=(518, 518), device="cuda")
    decomposer = Stage1Decomposer(backbone, ViewOptions(views=32), memory=6_000_000_000)
    ready = [decomposer.prepare(p, str(i)) for i, p in enumerate(photographs(decomposer.batch_size))]
    torch.cuda.reset_peak_memory_stats()
    decomposer.decompose(ready)
    assert torch.cuda.max_memory_allocated() < decomposer.estimated_bytes <= 6_000_000_000


def stage2(device: str, count: int, compiled: bool = False) -> list[Decomposition]:
    backbone = Backbone.create("test_vit", weights="random", input_size=(160, 160), device=device, dtype="float32")
    denoiser = Denoiser.fresh(backbone.width, backbone.grid)
    generator = torch.Generator().manual_seed(1)
    for value in denoiser.parameters():
        value.data += 0.05 * torch.randn(value.shape, generator=generator)
    artifact = torch.randn(*backbone.grid, backbone.width, generator=generator)
    decomposer = Stage2Decomposer(backbone, denoiser, artifact - artifact.mean((0, 1)), 3, compiled=compiled)
    ready = [decomposer.prepare(p, str(i)) for i, p in enumerate(photographs(count))]
    return [
        result
        for start in range(0, count, decomposer.batch_size)
        for result in decomposer.decompose(ready[start : start + decomposer.batch_size])
    ]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_stage_2_agrees_in_every_batch_in_flight(compiled: bool) -> None:
    for here, there in zip(stage2("cpu", 14), stage2("cuda", 14, compiled), strict=True):
        assert cosine(here.raw.float(), there.raw.float()) > TOLERANCE
        assert here.clean is not None
        assert there.clean is not None
        assert cosine(here.clean.float(), there.clean.float()) > TOLERANCE
        assert there.stats["cos_raw_clean"] == pytest.approx(here.stats["cos_raw_clean"], abs=1e-3)


def test_training_agrees_and_resumes() -> None:
    generator = torch.Generator().manual_seed(2)
    clean = torch.randn(12, 6, 6, 64, generator=generator)
    raw = clean + torch.randn(6, 6, 64, generator=generator)
    batches = [(raw[i : i + 4], clean[i : i + 4]) for i in (0, 4, 8)] * 8
    options = TrainOptions(steps=24, batch=4, validate_every=12, rate=1e-2)

    def losses(device: str, stop: int = 24) -> tuple[list[float], Trainer]:
        trainer = Trainer(Denoiser.fresh(64, (6, 6)), options, torch.device(device))
        return [step.loss for step in trainer.run(batches[:stop], [(raw[:4], clean[:4])])], trainer

    here, _ = losses("cpu")
    there, _ = losses("cuda")
    assert there == pytest.approx(here, rel=1e-2)
    first, halfway = losses("cuda", 12)
    resumed = Trainer(Denoiser.fresh(64, (6, 6)), options, torch.device("cuda"))
    data = halfway.to_bytes()
    resumed.restore(load(data), {"step": 12, "best": halfway.best, "stale": halfway.stale, "options": asdict(options)})
    rest = [step.loss for step in resumed.run(batches[12:], [(raw[:4], clean[:4])])]
    assert [*first, *rest] == pytest.approx(there, rel=1e-4)
