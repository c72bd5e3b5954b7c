"""How close `build --method raw` and `--method stage2` come to the model alone.

Peer, in the same run: the same model's own forward (with the denoiser's for stage2) over the same images, already decoded,
resized and normalised on the device, same dtype and batch; compiled on a GPU. The two take turns, so that a machine whose speed
drifts does not favour one. Limits: at least 0.9 of the peer's images/s on a CPU, 0.85 on a GPU. What each step takes alone is
printed too: the slowest limits, as far as they overlap.

    python tests/benchmarks/bench_build.py FOLDER [--method stage2] [--images 24] [--batch 4] [--rounds 3] [--input 518]
"""

import argparse
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from dvt import Backbone, Denoiser, RawDecomposer, Stage2Decomposer
from dvt.precision import autocast
from dvt.preprocess import normalise
from featstore.build import build_version
from featstore.images import decode
from featstore.index import index_dataset
from featstore.plan import Request
from featstore.query import restricted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--method", choices=["raw", "stage2"], default="raw")
    parser.add_argument("--backbone", default="dinov2_s")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--input", type=int, default=518)
    parser.add_argument("--root", type=Path, help="where stores are written: the disk counts")
    options = parser.parse_args()
    backbone = Backbone.create(options.backbone, weights="random", input_size=(options.input, options.input))
    denoiser = Denoiser.fresh(backbone.width, backbone.grid).to(backbone.device).eval()
    decomposer: RawDecomposer | Stage2Decomposer = RawDecomposer(backbone, options.batch)
    if options.method == "stage2":
        artifact = torch.zeros(*backbone.grid, backbone.width)
        decomposer = Stage2Decomposer(backbone, denoiser, artifact, options.batch)
    with tempfile.TemporaryDirectory(dir=options.root) as folder:
        root = Path(folder)
        index_dataset(root, "bench", options.folder)
        with restricted(root, "bench") as connection:
            found = connection.execute("SELECT path FROM images ORDER BY image_id LIMIT ?", [options.images]).fetchall()
        files = [options.folder / row[0] for row in found]
        pixels = [decomposer.prepare(decode(file.read_bytes()), "") for file in files]
        batches = [torch.stack(pixels[i : i + options.batch]) for i in range(0, len(pixels), options.batch)]
        inputs = [normalise(batch, backbone.mean, backbone.std, backbone.device) for batch in batches]
        run = bare_forward(backbone, denoiser if options.method == "stage2" else None)
        rates: dict[str, list[float]] = {"bare": [], "build": []}
        variants = ("raw", "clean") if options.method == "stage2" else ("raw",)
        for number in range(options.rounds + 1):
            bare = len(pixels) / seconds(lambda: [run(batch) for batch in inputs], backbone.device)
            build_root = root / f"store-{number}"
            index_dataset(build_root, "bench", options.folder)
            started = time.perf_counter()
            report = build_version(build_root, Request("bench", backbone.id, variants, limit=len(pixels)), decomposer)
            built = report.computed / (time.perf_counter() - started)
            if number:  # the first round warms up
                rates["bare"].append(bare)
                rates["build"].append(built)
                print(f"round {number}: bare {bare:.3f} images/s, build {built:.3f}, ratio {built / bare:.3f}")
        steps(files, decomposer, pixels)
    ratios = [b / a for a, b in zip(rates["bare"], rates["build"], strict=True)]
    limit = 0.85 if backbone.device.type == "cuda" else 0.9
    print(
        f"{options.method}, {options.backbone}, device {backbone.device}, input {options.input}, batch {options.batch}, "
        f"{len(pixels)} images, {backbone.dtype}: median ratio {statistics.median(ratios):.3f} (limit {limit})"
    )


def bare_forward(backbone: Backbone, denoiser: Denoiser | None) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the forward on tensors that are on the device already."""

    def forward(batch: torch.Tensor) -> torch.Tensor:
        tokens = backbone.model.forward_features(batch)  # type: ignore[operator]
        patches: torch.Tensor = tokens[:, backbone.prefix_tokens :].unflatten(1, backbone.grid)
        return patches if denoiser is None else denoiser(patches)

    chosen = torch.compile(forward) if backbone.device.type == "cuda" else forward

    @torch.inference_mode()
    def run(batch: torch.Tensor) -> torch.Tensor:
        with autocast(backbone.device, backbone.dtype):
            found: torch.Tensor = chosen(batch)
        return found

    return run


def steps(files: list[Path], decomposer: RawDecomposer | Stage2Decomposer, pixels: list[torch.Tensor]) -> None:
    """Print what each step of a build takes alone, an image, on one thread."""
    device = decomposer.backbone.device
    sample = np.zeros((*decomposer.grid, decomposer.width), np.float16)
    maps = 2 if isinstance(decomposer, Stage2Decomposer) else 1
    batch = pixels[: decomposer.batch_size]
    took = {
        "decode and resize": seconds(
            lambda: [decomposer.prepare(decode(f.read_bytes()), "") for f in files[:8]], device
        )
        / 8,
        "forward and copy out": seconds(lambda: decomposer.decompose(batch), device) / len(batch),
        "checksums": maps * seconds(lambda: hashlib.blake2b(sample.data, digest_size=8).digest(), device),
    }
    print("alone: " + ", ".join(f"{name} {1e3 * value:.1f} ms" for name, value in took.items()) + " an image")


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return what some work takes, the device waited for [s]."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
