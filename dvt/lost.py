"""LOST: the object that one image's patch features point to, found without training and without labels."""

from collections import deque
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["K_PATCHES", "Discovery", "connected", "find_object"]

K_PATCHES = 100
"""How many of the patches with the lowest degree may join the seed: k of the paper."""


@dataclass(frozen=True)
class Discovery:
    """What LOST found: ``seed`` (row, column), ``mask`` (H, W) of the object's patches on the CPU, and their ``box``.

    ``box`` is (top, left, bottom, right) [patches], bottom and right excluded.
    """

    seed: tuple[int, int]
    mask: Bool[Tensor, "h w"]
    box: tuple[int, int, int, int]


def find_object(features: Float[Tensor, "h w c"], k_patches: int = K_PATCHES) -> Discovery:
    """Return the object of one image's patch features.

    LOST, Siméoni et al., BMVC 2021 (arXiv 2109.14279), sections 3.2 to 3.4, on whatever features are given, where the paper
    takes the keys of the last attention. Two patches are alike where their scalar product is positive. The seed is the patch
    alike to fewest others, the first in reading order of several; those of the ``k_patches`` least connected patches that
    are alike to the seed join it; the object are the patches whose scalar products with all of these have a positive sum,
    as far as they hang together with the seed over edges. A seed that is alike to nothing, not to itself, stays alone.
    """
    height, width = features.shape[:2]
    patches = features.reshape(height * width, -1).float()
    products = patches @ patches.T
    alike = products > 0
    degree = alike.sum(dim=1) - alike.diagonal().long()
    order = degree.argsort(stable=True)
    seed = int(order[0])
    candidates = order[:k_patches]
    joined = candidates[alike[seed, candidates]]
    belongs = (products[joined].sum(dim=0) > 0).reshape(height, width).cpu()
    place = seed // width, seed % width
    belongs[place] = True
    mask = connected(belongs, place)
    rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
    return Discovery(place, mask, (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1))


def connected(mask: Bool[Tensor, "h w"], place: tuple[int, int]) -> Bool[Tensor, "h w"]:
    """Return the part of a mask that can be reached from a place over edges, not over corners; empty from outside the mask."""
    free = {(row, column) for row, column in mask.nonzero().tolist()}
    found = torch.zeros_like(mask)
    waiting = deque([place] if place in free else [])
    free.discard(place)
    while waiting:
        row, column = waiting.popleft()
        found[row, column] = True
        for near in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if near in free:
                free.remove(near)
                waiting.append(near)
    return found
