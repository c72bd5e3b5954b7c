"""What is to be computed, cut into shards."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path

from .compute import Decomposer
from .plan import Plan, Request
from .registry import free_shard_numbers
from .run import ShardSpec
from .shard import ShardHeader

__all__ = ["cut"]


def cut(
    root: Path, plans: Sequence[Plan], requests: Sequence[Request], parts: Sequence[Decomposer]
) -> Iterator[ShardSpec]:
    """Yield the shards of one version, or of several of the same images that are made in one pass, in order.

    Images that all versions lack share their shards' plan. Those that one alone lacks come first: where a build was killed
    between the shards of one pass, the next one gives what was missing its own numbers again, and the same bytes.
    """
    headers = [header_of(*each) for each in zip(plans, requests, parts, strict=True)]
    numbers = [free_shard_numbers(root, plan.folder) for plan in plans]
    size = min(plan.shard_size for plan in plans)
    lacking: dict[str, list[int]] = defaultdict(list)
    for part, plan in enumerate(plans):
        for image in plan.todo:
            lacking[image.sha256].append(part)
    for needed in sorted({tuple(needed) for needed in lacking.values()}, key=lambda needed: (len(needed), needed)):
        todo = [image for image in plans[needed[0]].todo if tuple(lacking[image.sha256]) == needed]
        for grid, images in groupby(todo, lambda image: image.grid):
            left = iter(images)
            while chosen := tuple(islice(left, size)):
                specs = []
                for part in needed:
                    header = replace(headers[part], grid=grid or plans[part].grid)
                    path = plans[part].folder / f"shard-{next(numbers[part]):05d}.h5"
                    specs.append(ShardSpec(path, header, chosen, part))
                yield replace(specs[0], beside=tuple(specs[1:]))


def header_of(plan: Plan, request: Request, decomposer: Decomposer) -> ShardHeader:
    """Return what the shards of a version say of themselves."""
    return ShardHeader(
        dataset=plan.dataset,
        backbone=plan.backbone,
        digest=plan.recipe.digest,
        recipe=plan.recipe.text,
        variants=plan.variants,
        grid=plan.grid,
        channels=decomposer.width,
        prefix_tokens=decomposer.prefix_tokens,
        provenance=json.dumps(request.environment, sort_keys=True),
        fine_grid=plan.fine_grid,
        store=plan.store,
        codec=plan.codec,
    )
