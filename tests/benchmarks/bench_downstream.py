"""What cleaning is worth downstream: kNN and ridge on patch labels, for raw, S, raw − G, blends, and S fitted without G.

Peer, in the same run: raw. Every line is scored on the same splits of the same images, and what is printed beside its mean
is the difference from raw on each split: mean, standard deviation, and on how many of them it is ahead. The last column is
the share of variance that positions explain. Features of the views are kept in --cache, so that a second run need not
run the model again. --finer 2 scores raw of an input twice as large, too, averaged to the same patches: what detail alone
is worth, with nothing cleaned.

    python tests/benchmarks/bench_downstream.py COCO_VOC --cache DIR [--input 224] [--views 32] [--solvers lstsq,field]

COCO_VOC holds VOCdevkit/VOC2012 and semantic133 (masks of 133 things and stuffs).
"""

import argparse
import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from dvt import (
    Backbone,
    FieldOptions,
    LstsqOptions,
    Stage1Decomposer,
    ViewOptions,
    mean_anywhere,
    position_share,
    raw_of,
)
from dvt.preprocess import squash
from dvt.view_features import Batch
from featstore.images import decode

sys.path.append(str(Path(__file__).parents[1] / "support"))
from yardstick import Scores, patch_labels, score

BLENDS = (0.25, 0.5, 0.75)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--backbone", default="dinov2_s")
    parser.add_argument("--weights", default="demo")
    parser.add_argument("--input", type=int, default=224)
    parser.add_argument("--views", type=int, default=64)
    parser.add_argument("--area", default="0.1,0.5")
    parser.add_argument("--crop-input", type=int, help="what crops are resized to, a square's side")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--solvers", default="lstsq")
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--measure", type=int, default=0, help="crops of each image to measure a prior artifact by")
    parser.add_argument("--finer", type=int, default=1, help="times the input's side, for raw of more detail")
    parser.add_argument("--splits", type=int, default=5)
    options = parser.parse_args()
    named = options.weights in ("demo", "hub", "random")
    backbone = Backbone.create(
        options.backbone,
        weights=options.weights if named else Path(options.weights),
        input_size=(options.input, options.input),
    )
    low, high = (float(word) for word in options.area.split(","))
    crop = (options.crop_input, options.crop_input) if options.crop_input else None
    drawn = ViewOptions(views=options.views, holdout=0, area=(low, high), crop_input=crop)
    decomposer = Stage1Decomposer(backbone, drawn)
    options.prior = measured(options, backbone) if options.measure else None
    names, variants = [], defaultdict(list)
    side = options.finer * options.input
    finer = backbone.resized((side, side)) if options.finer > 1 else None
    for name, batch in images(options, decomposer):
        names.append(name)
        for label, value in cleaned(options, decomposer, batch):
            variants[label].append(value.flatten(0, 1).cpu().numpy())
        if finer is not None:
            value = of_more_detail(finer, batch.images[0].image, options.finer)
            variants[f"raw at {side}, mean of {options.finer}x{options.finer}"].append(
                value.flatten(0, 1).cpu().numpy()
            )
    voc = options.data / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    tasks = {
        "VOC-21": [patch_labels(voc / f"{name}.png", backbone.grid, 255) for name in names],
        "COCO-133": [patch_labels(options.data / "semantic133" / f"{name}.png", backbone.grid, 0) for name in names],
    }
    sizes = [one.input_size for one in decomposer.backbones]
    print(f"{options.backbone} ({options.weights}) at {options.input}, {len(names)} images")
    print(f"views {decomposer.view_counts()} at inputs {sizes}, crops of {low} to {high} of the image")
    for task, labels in tasks.items():
        report(task, variants, labels, options.splits)
    print("share of variance that positions explain")
    for label, features in variants.items():
        maps = torch.from_numpy(np.stack(features))[:, None]  # a row of all positions
        print(f"  {label:28} {position_share(maps):.3f}")


def of_more_detail(backbone: Backbone, image: torch.Tensor, times: int) -> torch.Tensor:
    """Raw features (H, W, C) of a larger input, averaged over ``times`` by ``times`` patches."""
    raw, _ = raw_of(backbone, [squash(image, backbone.input_size, backbone.interpolation)])
    return F.avg_pool2d(raw.permute(0, 3, 1, 2), times)[0].permute(1, 2, 0)


def measured(options: argparse.Namespace, backbone: Backbone) -> torch.Tensor:
    """The artifact that `build --artifact-prior measure` begins from."""
    files = sorted((options.data / "VOCdevkit" / "VOC2012" / "JPEGImages").glob("*.jpg"))
    return mean_anywhere(backbone, ((decode(file.read_bytes()), file.name) for file in files), options.measure)


def images(options: argparse.Namespace, decomposer: Stage1Decomposer) -> Iterator[tuple[str, Batch]]:
    """Every image's views and their features, from the cache where they are there."""
    decided = json.dumps([decomposer.backbone.recipe(), decomposer.recipe()["method"]["views"]], sort_keys=True)
    folder = options.cache / hashlib.sha256(decided.encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    paths = sorted((options.data / "VOCdevkit" / "VOC2012" / "JPEGImages").glob("*.jpg"))[: options.images]
    for number, path in enumerate(paths):
        views = decomposer.prepare(decode(path.read_bytes()), path.stem)
        kept = folder / f"{path.stem}.pt"
        if not kept.exists():
            batch = decomposer.extract([views])
            torch.save([group.half().cpu() for group in batch.groups], folder / "part")
            (folder / "part").rename(kept)
            print(f"\r{number + 1} of {len(paths)} images", end="", file=sys.stderr, flush=True)
        groups = [group.float().to(decomposer.backbone.device) for group in torch.load(kept)]
        yield path.stem, Batch([views], groups, groups[0][:, :0], [groups[0].new_zeros(0, decomposer.width)], 0.0)


def cleaned(
    options: argparse.Namespace, decomposer: Stage1Decomposer, batch: Batch
) -> Iterator[tuple[str, torch.Tensor]]:
    """Every variant of one image's features, (H, W, C)."""
    raw = batch.groups[0][0, 0]
    yield "raw", raw
    solvers = {
        "lstsq": LstsqOptions(),
        "lstsq, measured prior": LstsqOptions(),
        "lstsq, no G": LstsqOptions(artifact=False),
        "field": FieldOptions(iterations=options.iterations),
    }
    for label, solver in solvers.items():
        if label.split(",")[0] not in options.solvers.split(","):
            continue
        known = options.prior if "prior" in label else None
        if "prior" in label and known is None:
            continue
        own = Stage1Decomposer(decomposer.backbone, decomposer.views, solver, prior=known)
        fit = own.fit(batch.images, batch.groups)[0]
        clean = own.take_apart(fit, batch.images[0], raw, batch.prefix[0]).clean
        clean = clean.to(raw.device)
        yield f"{label}: S", clean
        if "no G" not in label:
            yield f"{label}: raw - G", raw - fit.artifact
            for blend in () if known is not None else BLENDS:
                yield f"{label}: {blend} (raw - G) + {1 - blend} S", blend * (raw - fit.artifact) + (1 - blend) * clean


def report(task: str, variants: dict[str, list[np.ndarray]], labels: list[np.ndarray], count: int) -> None:
    """Print a line for every variant, beside raw's scores on the same splits."""
    print(
        f"\n{task:34} {'linear mIoU':>12} {'- raw (sd, ahead)':>22} {'kNN mIoU':>10} {'- raw (sd, ahead)':>22}"
        "  linear, kNN accuracy"
    )
    peer: Scores | None = None
    for label, features in variants.items():
        found = score(features, labels, count)
        peer = peer or found
        linear, near = found.linear_iou - peer.linear_iou, found.knn_iou - peer.knn_iou
        print(
            f"  {label:32} {found.linear_iou.mean():12.3f} {told(linear):>22} {found.knn_iou.mean():10.3f} {told(near):>22}"
            f"  {found.linear_accuracy.mean():.3f}, {found.knn_accuracy.mean():.3f}",
            flush=True,
        )


def told(difference: np.ndarray) -> str:
    """Mean, standard deviation over splits, splits ahead."""
    return f"{difference.mean():+.3f} ({difference.std():.3f}, {(difference > 0).sum()}/{len(difference)})"


if __name__ == "__main__":
    main()
