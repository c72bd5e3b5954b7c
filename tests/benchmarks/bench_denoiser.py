"""What a denoiser does on photographs never trained on: how near it comes to what stage 1 made of them, and how much of the
features positions still explain.

Positions are asked twice. Over whole photographs, where content itself depends on the position (sky above, things in the
middle); and over crops of the plane that a photograph and its mirror images tile, at a random place and size each, where it
cannot (the left of a crop of the photograph alone lies more often at the photograph's left): what positions explain there is
the model's doing. Peer, in the same run: raw. `PositionShare` is free of the bias that a mean over few
images has. Last, how far it looks: the share of D's sensitivity (squared gradient of a random direction of one patch's output)
that lies at that patch of its input, and at the 3 by 3 around it; 1 is a map of each patch by itself.

    python tests/benchmarks/bench_denoiser.py DENOISER FOLDER [--crops 4] [--pairs ROOT:DATASET/BACKBONE/VERSION]
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch

from dvt import Backbone, Denoiser, PositionShare, check_lineage, crops_anywhere, raw_of, validate
from dvt.preprocess import squash
from dvt.raw import as_tensor
from featstore import FeatureDataset
from featstore.images import decode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("denoiser")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="dinov2_s")
    parser.add_argument("--weights", default="demo")
    parser.add_argument("--input", type=int, default=224)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--crops", type=int, default=4, help="of each photograph")
    parser.add_argument("--pairs", help="a stage-1 version to compare with: ROOT:DATASET/BACKBONE/VERSION")
    options = parser.parse_args()
    named = options.weights in ("demo", "hub", "random")
    weights = options.weights if named else Path(options.weights)
    backbone = Backbone.create(options.backbone, weights=weights, input_size=(options.input, options.input))
    denoiser = Denoiser.from_checkpoint(options.denoiser, backbone.timm_name, backbone.width).to(backbone.device)
    check_lineage(denoiser, backbone.recipe())
    if options.pairs:
        root, _, name = options.pairs.partition(":")
        dataset, alias, version = name.split("/")
        data = FeatureDataset(root, dataset, backbone=alias, variants=("raw", "clean"), version=version)
        judged = validate(denoiser, pairs(data), backbone.device, "float32")
        print(
            f"{name}, {judged.images} images: cosine to clean {judged.cosine:.4f} (raw {judged.raw_cosine:.4f}), "
            f"mse {judged.mse:.3f} (raw {judged.raw_mse:.3f}); positions explain {judged.position:.3f} of D(raw), "
            f"{judged.raw_position:.3f} of raw, {judged.clean_position:.3f} of clean"
        )
    files = sorted(options.folder.glob("*.jpg"))[: options.images]
    raw, _ = raw_of(backbone, [one for batch in inputs(files[:8], backbone, 0) for one in batch])
    own, near = reach(denoiser, raw)
    print(f"of what moves a patch of D(raw), {own:.4f} is that patch of raw, {near:.4f} the 3 x 3 around it")
    for label, crops in (("whole photographs", 0), ("crops anywhere", options.crops)):
        shares = PositionShare(), PositionShare()
        for batch in inputs(files, backbone, crops):
            raw, _ = raw_of(backbone, batch)
            with torch.inference_mode():
                cleaned = denoiser(raw)
            for share, maps in zip(shares, (raw, cleaned), strict=True):
                share.add(maps)
        raw_share, own = (share.value() for share in shares)
        print(
            f"{label} ({shares[0].images}): raw {raw_share:.4f}, D(raw) {own:.4f}, ratio {own / raw_share:.2f} (limit 0.5)"
        )


def reach(denoiser: Denoiser, raw: torch.Tensor) -> tuple[float, float]:
    """The share of D's sensitivity at a middle patch that is that patch of raw (N, H, W, C), and the 3 by 3 around it."""
    row, column = raw.shape[1] // 2, raw.shape[2] // 2
    given = raw.clone().requires_grad_()
    direction = torch.randn(len(raw), raw.shape[-1], generator=torch.Generator().manual_seed(0)).to(raw)
    (found,) = torch.autograd.grad((denoiser(given)[:, row, column] * direction).sum(), given)
    moved = found.square().sum(dim=(0, 3))
    around = moved[row - 1 : row + 2, column - 1 : column + 2].sum()
    return float(moved[row, column] / moved.sum()), float(around / moved.sum())


def pairs(data: FeatureDataset) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (raw, clean) of a version, (1, H, W, C)."""
    for item in data:
        yield item["raw"].permute(1, 2, 0)[None], item["clean"].permute(1, 2, 0)[None]


def inputs(files: list[Path], backbone: Backbone, crops: int) -> Iterator[list[torch.Tensor]]:
    """Yield a photograph's inputs: itself, or so many crops of the plane that it and its mirror images tile."""
    for file in files:
        image = decode(file.read_bytes())
        whole = [squash(as_tensor(image), backbone.input_size, backbone.interpolation)]
        yield crops_anywhere(image, file.name, crops, backbone) if crops else whole


if __name__ == "__main__":
    main()
