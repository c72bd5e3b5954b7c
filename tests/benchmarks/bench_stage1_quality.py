"""Held-out quality of stage 1 by number of views, on one photograph with the demo weights.

One set of held-out crops judges every row. No peer: the figures are shares of variance. Limits: R² 0.59 from 64 views and
0.62 from 160.

    python tests/benchmarks/bench_stage1_quality.py PHOTO [--views 16,32,64,160] [--holdout 32]
"""

import argparse
import hashlib
import time
from pathlib import Path

import torch

from dvt import Backbone, LstsqOptions, Stage1Decomposer, ViewOptions, patch_centres, solve
from dvt.quality import heldout
from featstore.images import decode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--views", default="16,32,64,160")
    parser.add_argument("--holdout", type=int, default=32)
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--smooth", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    counts = [int(word) for word in options.views.split(",")]
    data = options.photo.read_bytes()
    backbone = Backbone.create("dinov2_s", weights="demo")
    decomposer = Stage1Decomposer(backbone, ViewOptions(views=max(counts), holdout=options.holdout))
    views = decomposer.prepare(decode(data), hashlib.sha256(data).hexdigest())
    started = time.perf_counter()
    features, _ = decomposer.features((*views.fit, *views.holdout), views)
    forward = (time.perf_counter() - started) / len(features)
    places = patch_centres((*views.fit, *views.holdout), views.size, backbone.grid).to(features.device)
    kept = len(views.fit)
    print(
        f"{options.photo.name}: {views.size}, {backbone.weights_source}, {forward:.2f} s a forward on {backbone.device}"
    )
    print("views  solve [s]  held-out R²  held-out cos  mean |G| / mean |raw|")
    for count in counts:
        started = time.perf_counter()
        solver = LstsqOptions(nodes=options.nodes, smooth=options.smooth, rounds=options.rounds)
        fit = solve(features[: count + 1], places[: count + 1], solver)
        seconds = time.perf_counter() - started
        figures = heldout(fit.sample(places[kept:]) + fit.artifact, features[kept:])
        share = fit.artifact.norm(dim=-1).mean() / torch.linalg.norm(features[0], dim=-1).mean()
        print(
            f"{count:5}  {seconds:9.2f}  {figures['heldout_r2']:11.4f}  {figures['heldout_cos']:12.4f}  {float(share):10.3f}"
        )


if __name__ == "__main__":
    main()
