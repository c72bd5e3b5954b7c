"""Labels of patches by neighbours and by a ridge, against scikit-learn; counts, mean IoU and their intervals by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import Normalizer, StandardScaler

from dvt import knn_labels, patch_labels, ridge_labels
from dvt.confusion import accuracy, bootstrap, count_pairs, mean_iou
from dvt.probe import RIDGES, applied, ridge_weights

GENERATOR = np.random.default_rng(0)
CENTRES = GENERATOR.normal(0, 1, (5, 24))


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Five overlapping classes in 24 channels of different scales."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 5, count)
    values = (CENTRES[labels] + generator.normal(0, 1.3, (count, 24))) * np.linspace(0.2, 6, 24) + 3
    return values.astype(np.float32), labels


def test_neighbours_vote_by_cosine_as_scikit_learn_has_it() -> None:
    (known, labels), (asked, truth) = drawn(600, 1), drawn(300, 2)
    for count in (1, 20):
        near = KNeighborsClassifier(count, weights=lambda distance: 1 - distance**2 / 2, algorithm="brute")
        expected = near.fit(Normalizer().fit_transform(known.astype(np.float64)), labels).predict(
            Normalizer().fit_transform(asked.astype(np.float64))
        )
        found = knn_labels(torch.from_numpy(known), torch.from_numpy(labels), torch.from_numpy(asked), count).numpy()
        assert np.mean(found == expected) > 0.99
    assert np.mean(found == truth) > 0.5
    few = knn_labels(torch.eye(2), torch.tensor([1, 0]), torch.tensor([[0.1, 2.0]]))
    assert few.tolist() == [0]  # of two there are no twenty


@pytest.mark.parametrize("ridge", RIDGES)
def test_a_ridge_is_that_of_scikit_learn(ridge: float) -> None:
    (known, labels), (asked, _) = drawn(600, 1), drawn(300, 2)
    scale = StandardScaler().fit(known.astype(np.float64))
    peer = RidgeClassifier(alpha=ridge, solver="cholesky").fit(scale.transform(known.astype(np.float64)), labels)
    (weights,) = ridge_weights(torch.from_numpy(known), torch.from_numpy(labels), 5, (ridge,))
    scores = torch.from_numpy(asked).double() @ weights[:-1] + weights[-1]
    np.testing.assert_allclose(scores, peer.decision_function(scale.transform(asked.astype(np.float64))), atol=1e-8)
    assert (applied(weights, torch.from_numpy(asked)).numpy() == peer.predict(scale.transform(asked))).all()
    flat = known.copy()
    flat[:, 3] = 7  # a channel that never changes is no division by nothing
    assert torch.isfinite(ridge_weights(torch.from_numpy(flat), torch.from_numpy(labels), 5, (ridge,))[0]).all()


def test_the_ridge_is_chosen_by_images_kept_out() -> None:
    parts = [drawn(60, seed) for seed in range(8)]
    known = [torch.from_numpy(values) for values, _ in parts]
    labels = [torch.from_numpy(own) for _, own in parts]
    asked, truth = drawn(400, 99)
    scores = []
    for ridge in (1.0, 1e7):
        counts = torch.zeros(5, 5, dtype=torch.int64)
        for fold in range(4):
            fit = [n for n in range(8) if n % 4 != fold]
            (weights,) = ridge_weights(
                torch.cat([known[n] for n in fit]), torch.cat([labels[n] for n in fit]), 5, (ridge,)
            )
            for n in (fold, fold + 4):
                counts += count_pairs(labels[n], applied(weights, known[n]), 5)
        scores.append(float(mean_iou(counts)))
    found, chosen = ridge_labels(known, labels, torch.from_numpy(asked), 5, (1.0, 1e7))
    assert chosen == (1.0, 1e7)[int(np.argmax(scores))] == 1.0
    assert np.mean(found.numpy() == truth) > 0.6
    assert ridge_labels(known[:2], labels[:2], torch.from_numpy(asked), 5, (5.0, 1.0))[1] == 5.0  # too few for folds


def test_figures_are_those_of_scikit_learn() -> None:
    truth, given = GENERATOR.integers(0, 4, 200), GENERATOR.integers(0, 5, 200)
    counts = count_pairs(torch.from_numpy(truth), torch.from_numpy(given), 6)
    np.testing.assert_array_equal(counts.numpy()[:5, :5], confusion_matrix(truth, given, labels=range(5)))
    assert float(accuracy(counts)) == pytest.approx(accuracy_score(truth, given))
    expected = jaccard_score(truth, given, labels=np.unique(truth), average="macro", zero_division=0)
    assert float(mean_iou(counts)) == pytest.approx(expected)
    assert math.isnan(float(mean_iou(torch.zeros(3, 3, dtype=torch.int64))))


def test_the_interval_holds_as_often_as_it_says() -> None:
    """Accuracy of n images of 50 patches, each image with a rate of its own: 95 % intervals miss about one in twenty."""
    generator = torch.Generator().manual_seed(0)
    hits, widths = 0, []
    for seed in range(120):
        rates = 0.4 + 0.4 * torch.rand(40, generator=generator)
        right = torch.binomial(torch.full((40,), 50.0), rates, generator=generator).long()
        counts = torch.zeros(40, 2, 2, dtype=torch.int64)
        counts[:, 0, 0], counts[:, 0, 1] = right, 50 - right
        low, high = bootstrap(accuracy, counts, seed=seed)
        hits += low <= 0.6 <= high
        widths.append(high - low)
    assert 105 <= hits <= 119  # 114 expected, with a standard deviation of 2.4
    sigma = math.sqrt((0.4**2 / 12 + (0.6 * 0.4 - 0.4**2 / 12) / 50) / 40)
    assert np.mean(widths) == pytest.approx(2 * 1.96 * sigma, rel=0.1)


def test_a_difference_is_surer_than_its_parts() -> None:
    generator = torch.Generator().manual_seed(1)
    right = torch.randint(5, 40, (30,), generator=generator)
    peer = torch.zeros(30, 2, 2, dtype=torch.int64)
    peer[:, 0, 0], peer[:, 0, 1] = right, 50 - right
    better = peer.clone()
    better[:, 0, 0] += 5
    better[:, 0, 1] -= 5
    low, high = bootstrap(accuracy, better, peer)
    assert (low, high) == pytest.approx((0.1, 0.1))
    apart = bootstrap(accuracy, better)
    assert apart[1] - apart[0] > 0.05
    assert bootstrap(accuracy, better, seed=3) == bootstrap(accuracy, better, seed=3) != apart
    assert all(math.isnan(end) for end in bootstrap(accuracy, better[:1], peer[:1]))  # of one image nobody is sure


def test_a_patch_has_the_label_of_most_of_its_pixels() -> None:
    mask = np.zeros((7, 9), np.uint16)
    mask[:4, 5:] = 2000
    mask[5:, :4] = 255
    found = patch_labels(mask, (2, 3), (255,)).reshape(2, 3)
    for row in range(2):
        for column in range(3):
            inside = [int(mask[y, x]) for y in range(7) for x in range(9) if y * 2 // 7 == row and x * 3 // 9 == column]
            most = max(sorted(set(inside)), key=inside.count)
            assert found[row, column] == (-1 if most == 255 else most)
    assert patch_labels(np.full((2, 2), 3), (4, 4)).reshape(4, 4).tolist()[0] == [3, -1, 3, -1]
