"""Judging a denoiser: sums over batches as plain numpy has them, and a share of variance without bias for few images."""

import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from dvt import PositionShare, validate

CPU = torch.device("cpu")
Maps = NDArray[np.float64]


def share(maps: Maps, sizes: Sequence[int] | None = None) -> float:
    judged, start = PositionShare(), 0
    for size in sizes or [len(maps)]:
        judged.add(torch.from_numpy(maps[start : start + size]))
        start += size
    return judged.value()


def centred(values: Maps) -> Maps:
    return values - values.mean(axis=(0, 1))


def plain(maps: Maps) -> float:
    """Two-way analysis of variance written out: the mean square of positions less that of what images do to them."""
    images, height, width, _ = maps.shape
    places = height * width
    overall, of_image, of_place = maps.mean(axis=(0, 1, 2)), maps.mean(axis=(1, 2)), maps.mean(axis=0)
    left = maps - of_image[:, None, None] - of_place + overall
    chance = (left**2).sum() / (images - 1) / places / images
    between = ((of_place - overall) ** 2).sum() / places
    return float((between - chance) / ((maps - overall) ** 2).sum() * images * places)


@pytest.mark.parametrize("images", [2, 3, 10])
@pytest.mark.parametrize("common", [0.0, 3.0], ids=["each position its own", "images differ as a whole"])
def test_pure_noise_has_no_share_on_average(images: int, common: float) -> None:
    """Also where the noise of an image's positions is mostly the same, as the content of photographs is."""
    generator = np.random.default_rng(images)
    found = []
    for _ in range(800):
        noise = generator.standard_normal((images, 3, 4, 6))
        found.append(share(noise + common * generator.standard_normal((images, 1, 1, 6))))
    error = 4 * np.std(found) / math.sqrt(len(found))
    assert (
        abs(np.mean(found)) < error < 1 / (images * 12)
    )  # the mean of 12 positions, left out, would bias it by as much


@pytest.mark.parametrize("images", [3, 8])
@pytest.mark.parametrize("spread", [0.5, 1.0, 3.0])
def test_a_planted_share_is_found_on_average(images: int, spread: float) -> None:
    """Positions have variance spread², images 1 about it, and as a whole another 1: the share is spread² of their sum."""
    generator = np.random.default_rng(0)
    position = centred(generator.standard_normal((4, 5, 32)))
    position *= spread / math.sqrt((position**2).mean())
    found = []
    for _ in range(60):
        own, whole = generator.standard_normal((images, 4, 5, 32)), generator.standard_normal((images, 1, 1, 32))
        found.append(share(position + own + whole))
    whole_left = 1 - 1 / images  # of what images are as a whole, their own mean takes a part that is nobody's
    assert np.mean(found) == pytest.approx(spread**2 / (spread**2 + 1 + whole_left), abs=0.01)


def test_known_maps_have_known_shares() -> None:
    position = centred(np.random.default_rng(1).standard_normal((3, 4, 5)))
    variance = (position**2).mean()
    assert share(np.stack([position] * 3)) == pytest.approx(1)
    assert share(np.stack([position + 2, position - 2])) == pytest.approx(variance / (variance + 4))
    assert share(np.stack([position, -position])) == pytest.approx(-1)
    assert math.isnan(share(np.ones((3, 2, 2, 4))))


@pytest.mark.parametrize("images", [2, 7])
def test_the_share_is_that_of_the_analysis_of_variance(images: int) -> None:
    generator = np.random.default_rng(images)
    maps = generator.standard_normal((images, 3, 4, 6)) + generator.standard_normal((3, 4, 6)) + 5
    assert share(maps) == pytest.approx(plain(maps), rel=1e-9)


@pytest.mark.parametrize("sizes", [[1] * 7, [3, 4], [6, 1]])
def test_how_images_are_batched_plays_no_part(sizes: list[int]) -> None:
    generator = np.random.default_rng(0)
    maps = generator.standard_normal((7, 3, 4, 6)) + generator.standard_normal((3, 4, 6))
    assert share(maps, sizes) == pytest.approx(share(maps), rel=1e-9)


def test_one_image_tells_nothing() -> None:
    assert math.isnan(PositionShare().value())
    assert math.isnan(share(np.random.default_rng(0).standard_normal((1, 3, 4, 6))))


@pytest.mark.parametrize("sizes", [[7], [1, 6], [3, 1, 2, 1], [1] * 7])
def test_the_means_are_those_over_images_whatever_the_batches(sizes: list[int]) -> None:
    """Errors differ from image to image, so that a mean over batches would not be that over images."""
    generator = np.random.default_rng(5)
    clean = generator.standard_normal((7, 3, 4, 6)).astype(np.float32)
    raw = clean + np.arange(7, dtype=np.float32)[:, None, None, None] * generator.standard_normal((3, 4, 6)).astype("f")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5))
    weight, bias = (value.detach().double().numpy() for value in model[0].parameters())
    found = raw.astype(np.float64) @ weight.T + bias

    def cosine(a: Maps, b: Maps) -> float:
        return float(((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).mean())

    cuts = np.cumsum(sizes)[:-1]
    pairs = zip(np.split(raw, cuts), np.split(clean, cuts), strict=True)
    judged = validate(model, ((torch.from_numpy(a), torch.from_numpy(b)) for a, b in pairs), CPU, "float32")
    expected = {"images": 7, "mse": ((found - clean) ** 2).mean(), "cosine": cosine(found, clean)}
    expected |= {"loss": expected["mse"] + 1 - expected["cosine"]}
    expected |= {"raw_mse": ((raw - clean).astype(np.float64) ** 2).mean(), "raw_cosine": cosine(raw, clean)}
    expected |= {"position": plain(found), "raw_position": plain(raw.astype(np.float64))}
    expected |= {"clean_position": plain(clean.astype(np.float64))}
    assert asdict(judged) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert model.training


def test_a_model_is_left_in_the_mode_it_was_in_and_nothing_is_learned() -> None:
    model = nn.Linear(6, 6).eval()
    judged = validate(model, [(torch.ones(1, 2, 2, 6), torch.ones(1, 2, 2, 6))], CPU, "float32")
    assert not model.training
    assert model.weight.grad is None
    assert judged.images == 1
    assert math.isnan(judged.position)
    assert math.isfinite(judged.loss)


def test_no_image_is_no_crash() -> None:
    judged = validate(nn.Linear(6, 6), [], CPU, "float32")
    assert judged.images == 0
    assert all(math.isnan(value) for name, value in asdict(judged).items() if name != "images")
