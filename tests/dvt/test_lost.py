"""LOST on planted objects, held against plain loops and SciPy; overlaps of boxes by hand."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from dvt import bootstrap, box_iou, connected, corloc, find_object


def planted(height: int, width: int, box: tuple[int, int, int, int], seed: int = 0) -> torch.Tensor:
    """An object of one direction on a background of the opposite one, in eight channels with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(8, generator=generator)
    sign = -torch.ones(height, width, 1)
    sign[box[0] : box[2], box[1] : box[3]] = 1
    return sign * direction + 0.05 * torch.randn(height, width, 8, generator=generator)


@pytest.mark.parametrize("box", [(2, 3, 6, 9), (0, 0, 3, 4), (5, 8, 9, 12), (4, 4, 5, 5)])
@pytest.mark.parametrize("k_patches", [1, 5, 100])
def test_a_planted_object_is_found(box: tuple[int, int, int, int], k_patches: int) -> None:
    found = find_object(planted(9, 12, box), k_patches)
    assert found.box == box
    assert int(found.mask.sum()) == (box[2] - box[0]) * (box[3] - box[1])
    assert bool(found.mask[found.seed])


def test_of_two_objects_alike_the_one_that_holds_the_seed_is_boxed() -> None:
    features = planted(9, 12, (1, 1, 3, 3))
    features[5:8, 6:11] = features[1, 1]
    assert find_object(features).box == (1, 1, 3, 3)
    features[3, 3] = features[1, 1]  # over a corner nothing hangs together
    assert find_object(features).box == (1, 1, 3, 3)
    features[2, 3] = features[1, 1]
    assert find_object(features).box == (1, 1, 4, 4)


def by_loops(features: NDArray[np.float64], k_patches: int) -> tuple[tuple[int, int], NDArray[np.bool_]]:
    """LOST as its paper tells it, patch by patch."""
    height, width = features.shape[:2]
    places = [(row, column) for row in range(height) for column in range(width)]
    dots = {(p, q): math.fsum(features[p] * features[q]) for p in places for q in places}
    degree = {p: sum(1 for q in places if q != p and dots[p, q] > 0) for p in places}
    ranked = sorted(places, key=lambda p: (degree[p], p))
    seed = ranked[0]
    group = [p for p in ranked[:k_patches] if dots[seed, p] > 0]
    mask = np.zeros((height, width), bool)
    for p in places:
        mask[p] = math.fsum(dots[p, s] for s in group) > 0
    named, _ = ndimage.label(mask)
    return seed, named == named[seed]


@pytest.mark.parametrize("seed", range(8))
def test_random_features_give_what_plain_loops_give(seed: int) -> None:
    generator = np.random.default_rng(seed)
    height, width = generator.integers(3, 8, 2)
    features = generator.normal(0.1 * (seed % 4), 1, (height, width, 5))
    for k_patches in (1, 7, 100):
        at, mask = by_loops(features, k_patches)
        found = find_object(torch.from_numpy(features), k_patches)
        rows, columns = np.nonzero(mask)
        assert found.seed == at
        assert np.array_equal(found.mask.numpy(), mask)
        assert found.box == (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)


def test_connected_parts_are_scipys() -> None:
    generator = np.random.default_rng(0)
    for share in (0.3, 0.6, 0.9):
        mask = generator.random((11, 14)) < share
        named, count = ndimage.label(mask)
        for row, column in np.ndindex(*mask.shape):
            found = connected(torch.from_numpy(mask), (row, column)).numpy()
            assert np.array_equal(found, (named == named[row, column]) & mask), count


def test_features_of_nothing_find_the_seed_alone() -> None:
    assert find_object(torch.zeros(4, 5, 3)).box == (0, 0, 1, 1)
    assert find_object(torch.ones(4, 5, 3)).box == (0, 0, 4, 5)  # all alike: the whole image


def test_float16_features_are_multiplied_in_float32() -> None:
    features = planted(6, 7, (1, 2, 4, 5)) * 3e3
    assert find_object(features.half()).box == (1, 2, 4, 5)  # their products are beyond float16


def test_overlaps_and_corloc_by_hand() -> None:
    box = torch.tensor([0.0, 0, 10, 10])
    others = torch.tensor(
        [[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [0, 0, 10, 5], [2, 2, 4, 7], [30, 30, 31, 31]]
    )
    assert box_iou(box, others).tolist() == pytest.approx([1, 50 / 150, 0, 0.5, 0.1, 0])
    counts = torch.tensor([[1, 1], [0, 1], [0, 0], [1, 1], [0, 1]])[:, None]
    assert float(corloc(counts.sum(dim=0))) == 0.5  # two of the four images that show an object
    low, high = bootstrap(corloc, counts)
    assert 0 <= low < 0.5 < high <= 1
    assert bootstrap(corloc, counts, counts) == (0, 0)
    assert math.isnan(float(corloc(torch.zeros(1, 2))))
