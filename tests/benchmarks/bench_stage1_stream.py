"""Stage 1 on a stream of images: seconds an image, how busy the device is, and the field against the original loop.

Peers and limits, in the same run: the device's own rate of matrix products in the forward's precision (the views' forward
should reach half of it), and, with --field, the faithful settings stepped eagerly, one image at a time (the default field
should be ten times faster). Prints memory estimated and taken. Runs on any device; figures meant for a GPU need one.

    python tests/benchmarks/bench_stage1_stream.py [--backbone dinov2_b] [--views 64] [--images 64] [--field] [--memory 40]
"""

import argparse
import resource
import time

import numpy as np
import torch

from dvt import Backbone, FieldOptions, Stage1Decomposer, ViewOptions, fit_field, patch_centres, sample_crops
from dvt.view_features import extract
from dvt.views import whole

SIZE = (375, 500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="dinov2_b")
    parser.add_argument("--input", type=int, default=518)
    parser.add_argument("--views", type=int, default=64)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--memory", type=float, help="GB")
    parser.add_argument("--field", action="store_true")
    parser.add_argument("--iterations", type=int, default=20_000, help="of the faithful loop")
    options = parser.parse_args()
    backbone = Backbone.create(options.backbone, weights="random", input_size=(options.input, options.input))
    memory = int(options.memory * 1e9) if options.memory else None
    decomposer = Stage1Decomposer(backbone, ViewOptions(options.views), batch_size=options.batch, memory=memory)
    print(
        f"{options.backbone} at {options.input}, {backbone.device}, {backbone.dtype}, {decomposer.forwards_per_image} forwards"
    )
    stream(decomposer, options.images)
    forward_rate(decomposer)
    if options.field:
        fields(backbone, options.views, options.iterations)


def stream(decomposer: Stage1Decomposer, count: int) -> None:
    """Seconds an image of a stream, after a first batch."""
    generator = np.random.default_rng(0)
    photographs = [generator.integers(0, 255, (*SIZE, 3), dtype=np.uint8) for _ in range(decomposer.batch_size)]
    ready = [decomposer.prepare(pixels, str(number)) for number, pixels in enumerate(photographs)]
    decomposer.decompose(ready)
    if decomposer.backbone.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    rounds = max(1, count // len(ready))
    started = time.perf_counter()
    for _ in range(rounds):
        decomposer.decompose(ready)
    seconds = (time.perf_counter() - started) / (rounds * len(ready))
    print(f"stream: {seconds:.3f} s an image (limit 1, aim 0.25 on one H200), {decomposer.together} solved together")
    print(
        f"memory: {decomposer.estimated_bytes / 1e9:.1f} GB estimated, {peak(decomposer.backbone.device) / 1e9:.1f} GB taken"
    )


def forward_rate(decomposer: Stage1Decomposer) -> None:
    """Share of the device's rate of matrix products that the views' forward reaches, cutting and resizing included."""
    backbone = decomposer.backbone
    pixels = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    views = decomposer.prepare(pixels, "rate")
    extract(decomposer.backbones, [views], decomposer.forward_batch)
    seconds = timed(backbone.device, lambda: extract(decomposer.backbones, [views], decomposer.forward_batch))
    weights = sum(value.numel() for value in backbone.model.blocks.parameters())
    work = 0
    for model, count in zip(decomposer.backbones, decomposer.view_counts(), strict=True):
        tokens = model.grid[0] * model.grid[1] + model.prefix_tokens
        work += count * (2 * weights * tokens + 4 * tokens**2 * model.width * model.depth)
    rate = work / seconds
    kind = torch.bfloat16 if backbone.dtype == "bfloat16" else torch.float32
    side = 8192 if backbone.device.type == "cuda" else 2048
    left = torch.randn(side, side, device=backbone.device, dtype=kind)
    torch.mm(left, left)
    best = 2 * side**3 / min(timed(backbone.device, lambda: torch.mm(left, left)) for _ in range(5))
    print(f"views' forward: {rate / 1e12:.2f} of {best / 1e12:.2f} TFLOP/s: {rate / best:.2f} (limit 0.5)")


def fields(backbone: Backbone, views: int, iterations: int) -> None:
    """The default field against the faithful settings stepped eagerly, on the same features."""
    crops = [whole(SIZE), *sample_crops(ViewOptions(), SIZE, "field", "fit", views)]
    places = patch_centres(crops, SIZE, backbone.grid).to(backbone.device)
    features = torch.randn(len(crops), *backbone.grid, backbone.width, device=backbone.device)
    fit_field(features, places, FieldOptions(iterations=20))
    own = timed(backbone.device, lambda: fit_field(features, places, FieldOptions()))
    faithful = FieldOptions.faithful(iterations)
    plain = timed(backbone.device, lambda: fit_field(features, places, faithful, backend="pytorch", graphs=False))
    whole_run = plain * 20_000 / iterations
    print(f"field: default {own:.1f} s, faithful and eager {whole_run:.1f} s (from {iterations} steps)")
    print(f"  {whole_run / own:.1f} times (limit 10)")


def timed(device: torch.device, work: object) -> float:
    """Seconds that some work takes, the device waited for."""
    assert callable(work)
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def peak(device: torch.device) -> int:
    """Bytes that the device had allocated at most, or the process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
