"""How much of features is position: planted shares, planted coordinates, and chance."""

import math

import numpy as np
import pytest
import torch

from dvt import PositionShare, chance_mic, maximal_information, position_mic, position_share


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("planted", [0.0, 0.05, 0.5, 0.95])
def test_a_planted_share_is_found_with_few_images(planted: float) -> None:
    """Positions and content of known variances; the mean square of the position means alone would tell 1/4 too much."""
    position = noise(8, 8, 512, seed=1)
    position = (position - position.mean(dim=(0, 1))) * math.sqrt(planted)
    found = position_share(position + noise(4, 8, 8, 512, seed=2) * math.sqrt(1 - planted))
    assert found == pytest.approx(planted, abs=0.02)


def test_the_share_is_one_for_positions_none_for_content_and_unknown_of_one_image() -> None:
    position = noise(5, 6, 8)
    assert position_share(position.expand(9, -1, -1, -1)) == pytest.approx(1)
    assert position_share(noise(200, 5, 6, 8)) == pytest.approx(0, abs=2e-3)
    assert math.isnan(position_share(noise(1, 5, 6, 8)))
    judged = PositionShare()
    maps = noise(6, 5, 6, 8) + position
    judged.add(maps[:2])
    judged.add(maps[2:])
    assert position_share(maps) == pytest.approx(judged.value(), rel=1e-9)


def test_the_mic_of_planted_coordinates_is_that_of_the_coordinate_and_chance() -> None:
    """Every channel is the row, of which the column tells nothing: halfway between 1 and, on a grid, 0."""
    rows = torch.arange(8.0)[None, :, None, None].expand(6, 8, 8, 4)
    assert position_mic(rows) == pytest.approx(0.5, abs=0.01)
    either = torch.stack([rows[..., 0], rows[..., 0].transpose(1, 2)], dim=-1)
    assert position_mic(either) == pytest.approx(0.5, abs=0.01)
    half = torch.cat([rows[..., :1], noise(6, 8, 8, 1)], dim=-1)
    assert position_mic(half) == pytest.approx((1 + 0 + 2 * chance_mic((8, 8))) / 4, abs=0.04)


def test_it_is_the_mean_over_pairs_of_an_image_and_a_channel_and_over_coordinates() -> None:
    maps = noise(2, 4, 5, 3).cumsum(dim=1)
    places = [axis.ravel().astype(float) for axis in np.indices((4, 5))]
    chosen = [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]  # images in turn, channels evenly spread
    values = [maps[image, :, :, channel].double().numpy().ravel() for image, channel in chosen]
    expected = np.mean([maximal_information(place, value) for place in places for value in values])
    assert position_mic(maps, pairs=6) == pytest.approx(expected, rel=1e-12)


def test_noise_is_chance_whatever_its_distribution_and_smooth_content_is_not() -> None:
    chance = chance_mic((16, 16))
    assert position_mic(noise(4, 16, 16, 32, seed=9).exp() * 1000) == pytest.approx(chance, abs=0.02)
    coarse = noise(4, 32, 3, 3, seed=4)
    smooth = torch.nn.functional.interpolate(coarse, (16, 16), mode="bicubic").permute(0, 2, 3, 1)
    assert position_mic(smooth) > 2 * chance


def test_drawn_tokens_are_the_same_again_and_stand_for_all() -> None:
    maps = noise(3, 24, 24, 8) + torch.arange(24.0)[:, None, None] / 6
    drawn = position_mic(maps, pairs=8, tokens=400)
    assert drawn == position_mic(maps, pairs=8, tokens=400)
    assert drawn != position_mic(maps, pairs=8, tokens=400, seed=1)
    assert drawn == pytest.approx(position_mic(maps, pairs=8), abs=0.05)
    assert math.isnan(position_mic(maps[:0]))
