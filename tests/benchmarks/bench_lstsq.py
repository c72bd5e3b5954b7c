"""What the direct solver costs beside the forwards that it needs.

Peer, in the same run: the model's forward of the same number of views. Limit: the solve costs less.

    python tests/benchmarks/bench_lstsq.py [--views 64,128] [--input 518] [--nodes 64]
"""

import argparse
import resource
import time

import torch

from dvt import Backbone, LstsqOptions, ViewOptions, patch_centres, sample_crops, solve
from dvt.views import whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", default="64,128")
    parser.add_argument("--input", type=int, default=518)
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4)
    options = parser.parse_args()
    backbone = Backbone.create("dinov2_s", weights="random", input_size=(options.input, options.input))
    size = (427, 640)
    print(
        f"device {backbone.device}, input {options.input}, C={backbone.width}, nodes {options.nodes}, one reweighting"
    )
    for count in (int(word) for word in options.views.split(",")):
        crops = [whole(size), *sample_crops(ViewOptions(), size, "bench", "fit", count - 1)]
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randn(options.batch, 3, *backbone.input_size, generator=generator).to(backbone.device)
        backbone.forward(pixels)
        started = time.perf_counter()
        features = torch.cat([backbone.forward(pixels)[0] for _ in range(count // options.batch)])
        features.sum().item()
        forwards = time.perf_counter() - started
        features = features[:count] + 0.1 * torch.randn(features.shape, generator=generator).to(backbone.device)
        places = patch_centres(crops, size, backbone.grid).to(backbone.device)
        times = []
        for _ in range(4):
            started = time.perf_counter()
            solve(features, places, LstsqOptions(nodes=options.nodes)).artifact.sum().item()
            times.append(time.perf_counter() - started)
        solved = sorted(times[1:])[1]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f"{count} views: forwards {forwards:.1f} s, solve {solved:.2f} s (first {times[0]:.2f} s), "
            f"ratio {solved / forwards:.3f} (limit 1), peak memory of the process {peak:.2f} GB"
        )


if __name__ == "__main__":
    main()
