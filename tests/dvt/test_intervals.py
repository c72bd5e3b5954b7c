"""Intervals of figures and of their differences, against SciPy and slow references."""

import numpy as np
import pytest
import torch
from scipy import stats

from dvt import Jackknifed, SolverError, Sums, segmentation_scores


def share(sums: torch.Tensor) -> torch.Tensor:
    """A figure of sums (…, 1, 2): the first over the second."""
    return sums[..., 0, 0] / sums[..., 0, 1]


def amounts(seeds: int, images: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    found = torch.rand(seeds, images, 1, 2, generator=generator, dtype=torch.float64)
    found[..., 1] += 1
    return found


def test_over_seeds_it_is_students_interval_of_each_seeds_figure() -> None:
    own, peer = amounts(4, 30), amounts(4, 30, seed=1)
    for told, values in (
        (Sums(own, share, "seeds").interval(), share(own.sum(dim=1))),
        (Sums(own, share, "seeds").beyond(Sums(peer, share, "seeds")), share(own.sum(dim=1)) - share(peer.sum(dim=1))),
    ):
        expected = stats.t.interval(0.95, 3, loc=values.mean(), scale=stats.sem(values.numpy()))
        assert told == pytest.approx((float(values.mean()), *expected), abs=1e-4)


def test_over_images_each_draw_is_the_same_of_all_seeds_and_of_the_peer() -> None:
    own, peer = amounts(3, 40), amounts(3, 40, seed=1)
    value, low, high = Sums(own, share, "images").beyond(Sums(peer, share, "images"))
    draws = np.random.default_rng(0).integers(40, size=(4000, 40))
    found = [
        float((share(own[:, drawn].sum(dim=1)) - share(peer[:, drawn].sum(dim=1))).mean()) for drawn in draws.tolist()
    ]
    assert value == pytest.approx(float((share(own.sum(dim=1)) - share(peer.sum(dim=1))).mean()))
    assert (low, high) == pytest.approx(np.quantile(found, [0.025, 0.975]), abs=0.01)
    same = Sums(own, share, "images")
    assert same.beyond(Sums(own.clone(), share, "images")) == (0, 0, 0)  # pairs have no noise


def test_one_seed_alone_is_judged_over_images_and_one_image_by_nothing() -> None:
    assert Sums(amounts(1, 9), share, "seeds").told == "images (bootstrap)"
    alone = Sums(amounts(1, 1), share)
    value, low, high = alone.interval()
    assert alone.told is None
    assert np.isfinite(value)
    assert np.isnan([low, high]).all()


def test_parts_add_up() -> None:
    whole = amounts(2, 12)
    parts = [Sums(part, share) for part in whole.split(5, dim=1)]
    assert parts[0].joined(parts[1:]).interval() == Sums(whole, share).interval()


def test_the_jackknife_of_a_mean_is_students_interval() -> None:
    own, peer = (np.random.default_rng(seed).normal(size=8) for seed in (0, 1))

    def of(values: np.ndarray) -> Jackknifed:  # type: ignore[type-arg]
        return Jackknifed(float(values.mean()), tuple(float(np.delete(values, place).mean()) for place in range(8)))

    for told, values in ((of(own).interval(), own), (of(own).beyond(of(peer)), own - peer)):
        expected = stats.t.interval(0.95, 7, loc=values.mean(), scale=stats.sem(values))
        assert told == pytest.approx((values.mean(), *expected), abs=1e-4)


def test_a_class_that_one_side_does_not_show_changes_neither_sides_figure() -> None:
    generator = torch.Generator().manual_seed(2)
    wide, narrow = (torch.randint(1, 9, (2, 12, size, size), generator=generator) for size in (3, 2))

    def miou(counts: torch.Tensor) -> torch.Tensor:
        return segmentation_scores(counts)["mIoU"]

    for over in ("seeds", "images"):
        own, peer = Sums(wide, miou, over), Sums(narrow, miou, over)  # type: ignore[arg-type]
        value, low, high = own.beyond(peer)
        assert value == pytest.approx(own.interval()[0] - peer.interval()[0])
        assert peer.beyond(own)[0] == pytest.approx(-value)
        assert low <= value <= high


def test_what_is_not_alike_is_not_paired() -> None:
    jackknifed = Jackknifed(0.5, (0.4, 0.6))
    for one, other in (
        (Sums(amounts(2, 5), share), Sums(amounts(2, 6), share)),
        (Sums(amounts(2, 5), share), jackknifed),
        (jackknifed, Jackknifed(0.5, (0.4,))),
    ):
        with pytest.raises(SolverError, match="can be paired"):
            one.beyond(other)
