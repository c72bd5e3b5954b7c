"""The downstream yardstick knows good features from bad ones."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("sklearn", reason="needs the demo extra")
from yardstick import patch_labels, score


def test_a_patchs_label_is_that_of_most_of_its_pixels(tmp_path: Path) -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[:20, :20] = 7
    mask[:20, 20:31] = 9  # the next cell's lesser part
    mask[:20, 40:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert patch_labels(tmp_path / "mask.png", (2, 3), void=255).tolist() == [7, 9, -1, 0, 0, 0]
    assert patch_labels(tmp_path / "mask.png", (2, 3), void=0).tolist() == [7, 9, 255, -1, -1, -1]


def test_features_that_tell_classes_apart_score_and_noise_does_not() -> None:
    generator = np.random.default_rng(0)
    labels = [generator.integers(-1, 4, 60) for _ in range(12)]
    noise = [generator.standard_normal((60, 16)).astype(np.float32) for _ in labels]
    told = [n + 4 * np.eye(16, dtype=np.float32)[y] for n, y in zip(noise, labels, strict=True)]
    good, bad = score(told, labels, count=2), score(noise, labels, count=2)
    assert good.knn_iou.min() > 0.9
    assert good.linear_iou.min() > 0.9
    assert bad.knn_accuracy.max() < 0.5
    assert bad.linear_accuracy.max() < 0.5
