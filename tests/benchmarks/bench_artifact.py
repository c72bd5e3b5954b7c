"""How well the artifact is known of few images: by fits of single images, and by crops in which content lies anywhere.

Truth is the mean over many such crops of all photographs of a folder. Peer, in the same run: no artifact, whose error is 1.

    python tests/benchmarks/bench_artifact.py FOLDER [--fitted 12] [--views 32] [--few 6] [--truth 600]

Errors are sums of squares over positions and channels, as shares of the truth's own. "top to bottom" is the error's part in
one pattern: half a cosine from the first row to the last. Crops are mirrored left to right at random, which tells an image's
own trend from left to right from the model's; only crops in which content lies anywhere do so from top to bottom.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dctn

from dvt import Backbone, LstsqOptions, Stage1Decomposer, ViewOptions, mean_anywhere
from featstore.images import decode

Photographs = list[tuple[NDArray[np.uint8], str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="dinov2_s")
    parser.add_argument("--weights", default="demo")
    parser.add_argument("--input", type=int, default=224)
    parser.add_argument("--views", type=int, default=32)
    parser.add_argument("--fitted", type=int, default=12, help="images fitted one by one")
    parser.add_argument("--few", type=int, default=6, help="images whose crops are few")
    parser.add_argument("--truth", type=int, default=600, help="crops that the truth is the mean of")
    options = parser.parse_args()
    backbone = Backbone.create(options.backbone, weights=options.weights, input_size=(options.input, options.input))
    paths = sorted(options.folder.glob("*.jpg"))
    all_of_them: Photographs = [(decode(path.read_bytes()), path.name) for path in paths]
    others = all_of_them[options.few :]  # the few must not be in the truth that judges them
    truth = mean_anywhere(backbone, others, -(-options.truth // len(others))).double()
    print(
        f"{options.backbone} ({options.weights}) at {options.input}; truth: {options.truth} crops of {len(others)} images"
    )
    print(f"{'':44} {'error':>7} {'top to bottom':>14}")
    told("no artifact", [torch.zeros_like(truth)], truth)

    few = all_of_them[: options.few]
    for each in (4, 8, 16, 32):
        found = mean_anywhere(backbone, few, each)
        told(f"{each * len(few)} crops of {len(few)} images", [found], truth)
    singles = [mean_anywhere(backbone, [one], 64) for one in few[:3]]
    told(f"64 crops of one image, mean of {len(singles)}", singles, truth)

    begun = mean_anywhere(backbone, few, 16)
    views = ViewOptions(views=options.views, holdout=0, crop_input=backbone.input_size)
    plain = Stage1Decomposer(backbone, views, LstsqOptions())
    helped = Stage1Decomposer(backbone, views, LstsqOptions(), prior=begun)
    fits: dict[str, list[torch.Tensor]] = {"fitted alone": [], f"from {16 * len(few)} crops": []}
    step = max(1, len(others) // options.fitted)
    for pixels, key in others[::step][: options.fitted]:
        batch = plain.extract([plain.prepare(pixels, key)])
        for name, decomposer in zip(fits, (plain, helped), strict=True):
            fits[name].append(decomposer.fit(batch.images, batch.groups)[0].artifact)
    for name, maps in fits.items():
        told(f"{options.views} views of an image, {name}", maps, truth)


def told(name: str, found: list[torch.Tensor], truth: torch.Tensor) -> None:
    """Print the mean error of maps (H, W, C)."""
    left = [dctn((one.double() - truth).numpy(), axes=(0, 1), norm="ortho") for one in found]
    whole = float(truth.square().sum())
    error, trend = (
        np.mean([(part**2).sum() / whole for part in parts]) for parts in (left, [one[1, 0] for one in left])
    )
    print(f"{name:44} {error:7.2f} {trend:14.2f}", flush=True)


if __name__ == "__main__":
    main()
