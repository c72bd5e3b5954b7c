"""The maximal information coefficient against closed forms, every grid tried by hand, and libmine's values."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dvt import maximal_information

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "mic_libmine.npz")
"""Made by libmine 1.2.6 (the C library of minepy), `mine_compute_score` with EST_MIC_APPROX, on the samples in the file."""


@pytest.mark.parametrize("case", range(len(GOLDEN["names"])), ids=GOLDEN["names"].tolist())
def test_it_is_what_libmine_finds(case: int) -> None:
    x, y = GOLDEN[f"{case}_x"], GOLDEN[f"{case}_y"]
    found = maximal_information(x, y, float(GOLDEN["alpha"][case]), float(GOLDEN["c"][case]))
    assert found == pytest.approx(float(GOLDEN["mic"][case]), abs=1e-12)


@pytest.mark.parametrize(
    "function", [lambda x: x, lambda x: -(x**3), lambda x: np.sin(4 * np.pi * x), lambda x: (x - 0.5) ** 2]
)
def test_a_function_without_noise_has_one(function: object) -> None:
    x = np.random.default_rng(0).uniform(size=500)
    assert maximal_information(x, function(x)) == pytest.approx(1, abs=0.01)  # type: ignore[operator]
    assert maximal_information(np.arange(64.0), np.arange(64.0)) == pytest.approx(1, abs=1e-12)


def test_two_equal_halves_have_the_information_of_a_binary_channel() -> None:
    """A quarter of either half is in the wrong one: I / log 2 is 1 less the entropy of a coin that falls so, in bits."""
    x = np.repeat([0.0, 1.0], 400)
    y = np.where(np.tile([True, False, False, False], 200), 1 - x, x)
    coin = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert maximal_information(x, y) == pytest.approx(1 - coin, abs=1e-12)
    assert maximal_information(x, np.ones(800)) == pytest.approx(0, abs=1e-12)


def test_chance_is_as_the_docstring_says_and_falls_with_the_number_of_pairs() -> None:
    generator = np.random.default_rng(3)
    means = [
        np.mean([maximal_information(*generator.standard_normal((2, count))) for _ in range(12)])
        for count in (100, 1000)
    ]
    assert means == pytest.approx([0.24, 0.135], abs=0.03)


def plain(x: NDArray[np.float64], y: NDArray[np.float64], cells: float) -> float:
    """Every grid of equally filled rows and any columns, without clumps, counted with histogram2d."""
    best = 0.0
    for one, two in ((x, y), (y, x)):
        edges = np.append(np.sort(one) - 1e-9, np.inf)
        for rows in range(2, int(cells / 2) + 1):
            row = np.argsort(np.argsort(two)) * rows // len(two)
            for columns in range(2, int(cells / rows) + 1):
                for cuts in itertools.combinations(range(1, len(one)), columns - 1):
                    column = np.searchsorted(edges[list(cuts)], one, side="right")
                    joint = np.histogram2d(column, row, (columns, rows))[0] / len(one)
                    outer = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
                    told = joint > 0
                    information = (joint[told] * np.log(joint[told] / outer[told])).sum()
                    best = max(best, information / math.log(min(rows, columns)))
    return float(best)


@pytest.mark.parametrize("seed", range(4))
def test_no_grid_tells_more(seed: int) -> None:
    """12 pairs and grids of up to 9 cells: rows of equally many, all columns there are."""
    generator = np.random.default_rng(seed)
    x, y = generator.permutation(12).astype(float), generator.permutation(12).astype(float)
    y += seed * x
    found = maximal_information(x, y, exponent=math.log(9.01) / math.log(12))
    assert found == pytest.approx(plain(x, y, 9.01), abs=1e-9)


def test_only_the_order_counts_and_neither_sample_comes_first() -> None:
    x, y = np.random.default_rng(5).standard_normal((2, 150))
    y = y + x
    found = maximal_information(x, y)
    assert maximal_information(np.exp(x), y**3) == found
    assert maximal_information(y, x) == found
    assert maximal_information(x[::-1], y[::-1]) == found


def test_what_is_no_pair_of_samples_is_told() -> None:
    with pytest.raises(ValueError, match=r"\(3,\) and \(2,\)"):
        maximal_information(np.zeros(3), np.zeros(2))
    assert maximal_information(np.zeros(1), np.zeros(1)) == 0
