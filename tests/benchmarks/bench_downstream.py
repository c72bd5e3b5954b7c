"""What cleaning is worth downstream: kNN and ridge on patch labels, for raw, S, raw − G, blends, and S fitted without G.

Peer, in the same run: raw. Every line is scored on the same splits of the same images, and what is printed beside its mean
is the difference from raw on each split: mean, standard deviation, and on how many of them it is ahead. The last column is
the share of variance that positions explain. Features of the views are kept in --cache, so that a second run need not
run the model again.

    python tests/benchmarks/bench_downstream.py COCO_VOC --cache DIR [--input 224] [--views 32] [--solvers lstsq,field]

COCO_VOC holds VOCdevkit/VOC2012 and semantic133 (masks of 133 things and stuffs).
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from dvt import Backbone, FieldOptions, LstsqOptions, Stage1Decomposer, ViewOptions
from featstore.images import decode

sys.path.append(str(Path(__file__).parents[1] / "support"))
from yardstick import Scores, patch_labels, position_share, score

BLENDS = (0.25, 0.5, 0.75)
WITHOUT_G = 1e9  # a prior of no artifact so strong that there is none


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--backbone", default="dinov2_s")
    parser.add_argument("--weights", default="demo")
    parser.add_argument("--input", type=int, default=224)
    parser.add_argument("--views", type=int, default=32)
    parser.add_argument("--area", default="0.1,0.5")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--solvers", default="lstsq")
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--splits", type=int, default=5)
    options = parser.parse_args()
    named = options.weights in ("demo", "hub", "random")
    backbone = Backbone.create(
        options.backbone,
        weights=options.weights if named else Path(options.weights),
        input_size=(options.input, options.input),
    )
    low, high = (float(word) for word in options.area.split(","))
    decomposer = Stage1Decomposer(backbone, ViewOptions(views=options.views, holdout=0, area=(low, high)))
    names, variants = [], defaultdict(list)
    for name, views, features in images(options, backbone, decomposer):
        names.append(name)
        for label, value in cleaned(options, decomposer, views, features):
            variants[label].append(value.flatten(0, 1).cpu().numpy())
    voc = options.data / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    tasks = {
        "VOC-21": [patch_labels(voc / f"{name}.png", backbone.grid, 255) for name in names],
        "COCO-133": [patch_labels(options.data / "semantic133" / f"{name}.png", backbone.grid, 0) for name in names],
    }
    print(
        f"{options.backbone} ({options.weights}) at {options.input}, {len(names)} images, {options.views} views of {low}-{high}"
    )
    for task, labels in tasks.items():
        report(task, variants, labels, options.splits)
    print("share of variance that positions explain")
    for label, features in variants.items():
        print(f"  {label:28} {position_share(features):.3f}")


def images(
    options: argparse.Namespace, backbone: Backbone, decomposer: Stage1Decomposer
) -> Iterator[tuple[str, Views, torch.Tensor]]:
    """Every image's views and their features, from the cache where they are there."""
    kind = f"{backbone.weights_digest[:12]}-{options.input}-{options.views}-{options.area}"
    folder = options.cache / kind
    folder.mkdir(parents=True, exist_ok=True)
    paths = sorted((options.data / "VOCdevkit" / "VOC2012" / "JPEGImages").glob("*.jpg"))[: options.images]
    for number, path in enumerate(paths):
        views = decomposer.prepare(decode(path.read_bytes()), path.stem)
        kept = folder / f"{path.stem}.npy"
        if not kept.exists():
            features = extract(backbone, [views], decomposer.forward_batch).features[0]
            np.save(folder / "part.npy", features.half().cpu().numpy())
            (folder / "part.npy").rename(kept)
            print(f"\r{number + 1} of {len(paths)} images", end="", file=sys.stderr, flush=True)
        yield path.stem, views, torch.from_numpy(np.load(kept)).float().to(backbone.device)


def cleaned(
    options: argparse.Namespace, decomposer: Stage1Decomposer, views: Views, features: torch.Tensor
) -> Iterator[tuple[str, torch.Tensor]]:
    """Every variant of one image's features, (H, W, C)."""
    raw, backbone = features[0], decomposer.backbone
    yield "raw", raw
    solvers = {
        "lstsq": (LstsqOptions(), None),
        "lstsq, no G": (LstsqOptions(prior=WITHOUT_G), torch.zeros_like(raw).cpu()),
        "field": (FieldOptions(iterations=options.iterations), None),
    }
    for label, (solver, prior) in solvers.items():
        if label.split(",")[0] not in options.solvers.split(","):
            continue
        own = Stage1Decomposer(backbone, decomposer.views, solver, prior=prior)
        fit = own.fit([views], features[None])[0]
        clean = own.take_apart(fit, views, features, features.new_zeros(0, backbone.width)).clean
        clean = clean.to(raw.device)
        yield f"{label}: S", clean
        if prior is None:
            yield f"{label}: raw - G", raw - fit.artifact
            for blend in BLENDS:
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
