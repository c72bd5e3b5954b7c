"""What features are worth downstream: kNN and ridge on patch labels, on several splits of the same images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import jaccard_score, make_scorer
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from dvt import patch_labels as majority

NEIGHBOURS = 20
RIDGES = (10.0, 100.0, 1000.0, 10_000.0)
FOLDS = 4  # of the training images, by which a ridge is chosen
KNN_PATCHES, RIDGE_PATCHES = 120, 400  # of an image; all of a test image's for ridge


@dataclass(frozen=True)
class Scores:
    """Mean IoU and accuracy over labelled patches, one value a split."""

    linear_iou: NDArray[np.float64]
    linear_accuracy: NDArray[np.float64]
    knn_iou: NDArray[np.float64]
    knn_accuracy: NDArray[np.float64]


def patch_labels(path: Path, grid: tuple[int, int], void: int) -> NDArray[np.int64]:
    """The label that most pixels of each cell have, row by row; -1 where that is ``void``."""
    return majority(np.array(Image.open(path)), grid, (void,))


def splits(images: int, count: int, seed: int = 0) -> Iterator[tuple[list[int], list[int]]]:
    """Two thirds to train, one to test, drawn anew each time."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        order = generator.permutation(images).tolist()
        yield order[: round(images * 0.66)], order[round(images * 0.66) :]


def score(
    features: Sequence[NDArray[np.float32]], labels: Sequence[NDArray[np.int64]], count: int = 5, seed: int = 0
) -> Scores:
    """Scores of (P, C) features with (P,) labels, image by image."""
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(len(one)) for one in features]

    def gather(images: Sequence[int], most: int) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        picks = [orders[i][:most] for i in images]
        values = np.concatenate([features[i][p] for i, p in zip(images, picks, strict=True)]).astype(np.float64)
        truth = np.concatenate([labels[i][p] for i, p in zip(images, picks, strict=True)])
        origin = np.repeat(images, [len(p) for p in picks])
        return values[truth >= 0], truth[truth >= 0], origin[truth >= 0]

    results = []
    for train, test in splits(len(features), count, seed):
        line = []
        for fit, fitted, most in ((ridge, RIDGE_PATCHES, 10**9), (knn, KNN_PATCHES, KNN_PATCHES)):
            model = fit(*gather(train, fitted))
            values, truth, _ = gather(test, most)
            found = model.predict(values)
            line += [mean_iou(truth, found), np.mean(found == truth)]
        results.append(line)
    return Scores(*np.array(results).T)


def mean_iou(truth: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    """IoU averaged over the classes that are there."""
    return float(jaccard_score(truth, found, labels=np.unique(truth), average="macro", zero_division=0))


def ridge(values: NDArray[np.float64], truth: NDArray[np.int64], images: NDArray[np.int64]) -> GridSearchCV:
    """Least squares on one-hot labels of standardised features; the ridge by mean IoU on images kept out."""
    model = make_pipeline(StandardScaler(), RidgeClassifier(solver="cholesky"))
    choice = {"ridgeclassifier__alpha": RIDGES}
    search = GridSearchCV(model, choice, scoring=make_scorer(mean_iou), cv=GroupKFold(FOLDS), error_score="raise")
    return search.fit(values, truth, groups=images)


def knn(values: NDArray[np.float64], truth: NDArray[np.int64], images: NDArray[np.int64]) -> Pipeline:
    """Votes of the nearest by cosine, weighed by nearness."""
    near = KNeighborsClassifier(NEIGHBOURS, weights=lambda distance: 1 - distance**2 / 2)
    return make_pipeline(Normalizer(), near).fit(values, truth)
