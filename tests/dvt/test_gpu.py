"""Stage 1 on a CUDA device against the CPU: the same features to a stated tolerance, the same bits twice, memory kept."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from dvt import Backbone, Decomposition, FieldOptions, GridOptions, LstsqOptions, Stage1Decomposer, ViewOptions

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
