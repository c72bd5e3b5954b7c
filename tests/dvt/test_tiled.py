"""The mean over crops anywhere: content leaves no trace, what the model adds at positions does."""

import numpy as np
import pytest
import torch

from dvt import Backbone, SolverError, mean_anywhere
from dvt import tiled as module
from dvt.tiled import crops_anywhere


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone.create("vit_tiny_patch16_224", weights="random", input_size=(64, 96), device="cpu")


def ramp(height: int = 60, width: int = 90) -> np.ndarray:
    """A photograph whose content depends on the place alone: dark left and bright right, and so from top to bottom."""
    across = np.linspace(0, 255, width)[None, :].repeat(height, 0)
    down = np.linspace(0, 255, height)[:, None].repeat(width, 1)
    return np.stack([across, down, 255 - across], axis=-1).astype(np.uint8)


def test_content_is_anywhere_in_crops_of_the_tiled_plane(backbone: Backbone) -> None:
    """Every part of the mean crop has the photograph's mean colour; crops of the photograph alone would keep the ramp."""
    crops = torch.stack(crops_anywhere(ramp(), "a", 1500, backbone)).float()
    mean = crops.mean(dim=0)
    left, right = mean[0, :, :16].mean(), mean[0, :, -16:].mean()
    top, bottom = mean[1, :16].mean(), mean[1, -16:].mean()
    assert abs(float(left - right)) < 5  # of 255; two thirds of a crop's width shift the ramp by about 60
    assert abs(float(top - bottom)) < 5
    assert float(mean[0].mean()) == pytest.approx(127.5, abs=5)


def test_a_key_decides_the_crops(backbone: Backbone) -> None:
    first, again, other = (crops_anywhere(ramp(), key, 3, backbone) for key in ("a", "a", "b"))
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(first, other, strict=True))


def test_what_a_model_adds_at_positions_is_found(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that gives each patch's mean colour plus a planted map: the map is found, but for 1/√crops of the content."""
    artifact = torch.randn(4, 6, 192, generator=torch.Generator().manual_seed(0)) * 20
    artifact -= artifact.mean(dim=(0, 1))

    def plain(_: object, crops: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        colours = torch.nn.functional.adaptive_avg_pool2d(torch.stack(crops).float(), (4, 6)).permute(0, 2, 3, 1)
        colours = colours.repeat(1, 1, 1, 64)
        return colours + artifact + 9, colours[:, 0, :0]

    monkeypatch.setattr(module, "raw_of", plain)
    images = [(ramp(), str(number)) for number in range(20)]
    for size in (7, 64):
        found = mean_anywhere(backbone, images, 100, size)
        assert float((found - artifact).square().mean().sqrt()) < 3  # content varies by 73, over 2000 crops by 1.6
        assert float(found.mean(dim=(0, 1)).abs().max()) < 1e-4


def test_no_image_is_told(backbone: Backbone) -> None:
    with pytest.raises(SolverError, match="no image"):
        mean_anywhere(backbone, [], 4)
