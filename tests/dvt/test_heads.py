"""Heads and figures of dense tasks, held against loops, scikit-learn, SciPy and planted truths."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics

from dvt import (
    ClassHead,
    DepthHead,
    HeadOptions,
    JackknifeShare,
    count_pairs,
    depth_scores,
    gradient_loss,
    over_seeds,
    position_share,
    scale_invariant_loss,
    segmentation_scores,
    train_head,
)


def test_segmentation_is_counted_as_scikit_learn_does() -> None:
    generator = np.random.default_rng(0)
    true, given = generator.integers(0, 5, 4000), generator.integers(0, 5, 4000)
    given = np.where(generator.random(4000) < 0.6, true, given)
    found = segmentation_scores(count_pairs(torch.from_numpy(true), torch.from_numpy(given), 5))
    assert float(found["mIoU"]) == pytest.approx(metrics.jaccard_score(true, given, average="macro"))
    assert float(found["aAcc"]) == pytest.approx(metrics.accuracy_score(true, given))
    assert float(found["mAcc"]) == pytest.approx(metrics.recall_score(true, given, average="macro"))


def test_a_class_that_is_only_given_counts_against_iou_and_one_that_is_nowhere_does_not() -> None:
    true, given = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 2, 1])
    found = segmentation_scores(count_pairs(true, given, 5))
    assert {name: round(float(value), 6) for name, value in found.items()} == {
        "mIoU": round((2 / 3 + 1 + 0) / 3, 6),
        "aAcc": 0.75,
        "mAcc": round((2 / 3 + 1) / 2, 6),
    }
    draws = segmentation_scores(torch.stack([count_pairs(true, given, 5), torch.zeros(5, 5, dtype=torch.int64)]))
    assert torch.isnan(draws["mIoU"]).tolist() == [False, True]


def test_the_interval_over_seeds_is_students() -> None:
    for count in (2, 3, 7, 20):
        values = np.random.default_rng(count).normal(0.4, 0.1, count)
        mean, low, high = over_seeds(values.tolist())
        ends = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
        assert (mean, low, high) == pytest.approx((values.mean(), *ends), abs=1e-5)
    assert over_seeds([0.3])[0] == 0.3
    assert math.isnan(over_seeds([0.3])[1])


def test_depth_figures_are_those_of_a_plain_loop() -> None:
    generator = np.random.default_rng(1)
    true = generator.uniform(0.5, 9.5, (6, 7))
    true[0], true[1, 0] = 0, 12.0  # not known, and beyond the range
    given = true * generator.uniform(0.5, 2, (6, 7)) + 0.1
    found = depth_scores(torch.from_numpy(given), torch.from_numpy(true), 1e-3, 10.0)
    pairs = [(min(g, 10), t) for g, t in zip(given.ravel(), true.ravel(), strict=True) if 1e-3 < t < 10]
    assert found is not None
    assert len(pairs) == 34
    assert found["RMSE"] == pytest.approx(math.sqrt(sum((g - t) ** 2 for g, t in pairs) / 34))
    assert found["AbsRel"] == pytest.approx(sum(abs(g - t) / t for g, t in pairs) / 34)
    for power in (1, 2, 3):
        assert found[f"delta{power}"] == sum(max(g / t, t / g) < 1.25**power for g, t in pairs) / 34
    assert depth_scores(torch.ones(2, 2), torch.zeros(2, 2), 1e-3, 10.0) is None


def test_the_loss_of_depths_is_eigens() -> None:
    generator = np.random.default_rng(2)
    given, true = generator.uniform(1, 9, 50), generator.uniform(1, 9, 50)
    away = np.log(given) - np.log(true)
    plain = math.sqrt((away**2).sum() / 50 - 0.85 * away.sum() ** 2 / 50**2)
    found = scale_invariant_loss(torch.from_numpy(given), torch.from_numpy(true), eps=0.0)
    assert float(found) == pytest.approx(plain)
    scaled = scale_invariant_loss(torch.from_numpy(3 * true), torch.from_numpy(true), eps=0.0)
    assert float(scaled) == pytest.approx(math.sqrt(0.15) * math.log(3))
    assert float(scale_invariant_loss(torch.ones(1), torch.ones(1))) == 0


def repeated(features: torch.Tensor, true: torch.Tensor, count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(features, true)] * count


def test_planted_classes_are_learned_and_ignored_labels_teach_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (8, 6, 6), generator=generator)
    features = torch.nn.functional.one_hot(labels, 4).permute(0, 3, 1, 2).float()
    hidden = torch.rand(labels.shape, generator=generator) < 0.5
    head = ClassHead(4, 4, torch.Generator().manual_seed(1))
    train_head(head, repeated(features, torch.where(hidden, -1, labels), 60), HeadOptions(steps=60, rate=0.05))
    scores = segmentation_scores(count_pairs(labels.flatten(), head(features, (6, 6)).argmax(dim=1).flatten(), 4))
    assert float(scores["mIoU"]) == 1
    given = head(features, (6, 6)).detach().requires_grad_()
    head.loss(given, torch.where(hidden, -1, labels)).backward()  # type: ignore[no-untyped-call]
    assert given.grad is not None
    assert not given.grad.permute(0, 2, 3, 1)[hidden].any()
    nothing = head.loss(given, torch.full_like(labels, -1))
    assert float(nothing.detach()) == 0


def test_features_that_tell_nothing_stay_at_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 8, 6, 6, generator=generator)
    labels = torch.randint(0, 4, (40, 6, 6), generator=generator)
    head = ClassHead(8, 4, generator)
    train_head(head, repeated(features[:20], labels[:20], 60), HeadOptions(steps=60, rate=0.01))
    given = head(features[20:], (6, 6)).argmax(dim=1)
    scores = segmentation_scores(count_pairs(labels[20:].flatten(), given.flatten(), 4))
    assert 0.2 < float(scores["aAcc"]) < 0.3
    assert float(scores["mIoU"]) < 0.2


def test_a_planted_depth_is_learned() -> None:
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(24, 5, 6, 6, generator=generator)
    depth = 4 + features[:, 0].clamp(-2, 2)
    head = DepthHead(5, generator=generator)
    before = depth_scores(head(features, (6, 6)).detach()[0], depth[0], 1e-3, 10.0)
    train_head(head, repeated(features[:16], depth[:16], 300), HeadOptions(steps=300, rate=0.02))
    found = [
        depth_scores(own, true, 1e-3, 10.0) for own, true in zip(head(features[16:], (6, 6)), depth[16:], strict=True)
    ]
    errors = [one["AbsRel"] for one in found if one]
    assert before is not None
    assert np.mean(errors) < 0.08 < before["AbsRel"]
    assert head(features, (12, 12)).shape == (24, 12, 12)
    assert 1e-3 <= float(head(features, (6, 6)).min()) <= float(head(features, (6, 6)).max()) <= 10


def test_the_share_of_positions_has_a_jackknifes_interval() -> None:
    maps = (
        torch.randn(12, 3, 4, 5, generator=torch.Generator().manual_seed(4)) + torch.arange(12.0).reshape(3, 4, 1) / 8
    )
    share = JackknifeShare(12)
    for part in maps.split(5):
        share.add(part)
    value, low, high = share.estimate().interval()
    without = np.array([position_share(torch.cat([maps[:n], maps[n + 1 :]])) for n in range(12)])
    error = math.sqrt(11 / 12 * ((without - without.mean()) ** 2).sum())
    half = float(stats.t.ppf(0.975, 11)) * error
    assert (value, low, high) == pytest.approx((position_share(maps), value - half, value + half), abs=1e-5)


def by_loops(given: np.ndarray, true: np.ndarray, known: np.ndarray, eps: float) -> float:  # type: ignore[type-arg]
    """The gradient loss, pair of pixels by pair of pixels."""
    total = 0.0
    for stride in (1, 2, 4, 6):
        steep, count = 0.0, 0
        for n, row, column in np.ndindex(*known.shape):
            if row % stride or column % stride or not known[n, row, column]:
                continue
            count += 1
            for far in ((n, row + 2 * stride, column), (n, row, column + 2 * stride)):
                if far[1] < known.shape[1] and far[2] < known.shape[2] and known[far]:
                    here = math.log(given[n, row, column] + eps) - math.log(true[n, row, column] + eps)
                    steep += abs(math.log(given[far] + eps) - math.log(true[far] + eps) - here)
        total += steep / count
    return total


def test_the_loss_of_gradients_is_that_of_plain_loops() -> None:
    generator = np.random.default_rng(5)
    for shape in ((3, 16, 21), (1, 13, 7)):
        given, true = generator.uniform(0.5, 9, shape), generator.uniform(0.5, 9, shape)
        known = generator.random(shape) < 0.8
        true[~known] = 0
        for eps in (1e-3, 0.1):
            found = gradient_loss(torch.from_numpy(given), torch.from_numpy(true), torch.from_numpy(known), eps)
            assert float(found) == pytest.approx(by_loops(given, true, known, eps))


def test_the_loss_of_gradients_has_its_closed_forms() -> None:
    true = torch.rand(2, 24, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    known = torch.ones_like(true, dtype=torch.bool)
    assert float(gradient_loss(3 * true, true, known, eps=0.0)) == pytest.approx(0, abs=1e-12)
    # Off by a factor e^(row / 100): at stride s pairs down differ by s / 50, and all pixels but the last two rows have one.
    rows = torch.arange(24, dtype=torch.float64)[:, None]
    steep = sum(2 * s * 0.01 * (24 // s - 2) / (24 // s) for s in (1, 2, 4, 6))
    assert float(gradient_loss(true * torch.exp(0.01 * rows), true, known, eps=0.0)) == pytest.approx(steep)
    nothing = gradient_loss(true, true * 2, torch.zeros_like(known))
    assert float(nothing) == 0
    assert float(gradient_loss(true[:, :1, :1], true[:, :1, :1], known[:, :1, :1])) == 0


def test_depths_that_are_not_known_teach_nothing() -> None:
    generator = torch.Generator().manual_seed(6)
    true = torch.rand(2, 12, 14, generator=generator) * 8 + 0.5
    hidden = torch.rand(true.shape, generator=generator) < 0.3
    true[hidden] = 0
    true[0, 3, 4], hidden[0, 3, 4] = 11, True  # beyond the range
    given = (torch.rand(true.shape, generator=generator) * 8 + 0.5).requires_grad_()
    head = DepthHead(4)
    head.loss(given, true).backward()  # type: ignore[no-untyped-call]
    assert given.grad is not None
    assert not given.grad[hidden].any()
    assert given.grad[~hidden].all()
    plain = DepthHead(4, gradient=0.0).loss(given.detach(), true)
    both = plain + 0.5 * gradient_loss(given.detach(), true, ~hidden)
    assert float(head.loss(given.detach(), true)) == pytest.approx(float(both))
