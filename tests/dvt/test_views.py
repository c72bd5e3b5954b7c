import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from dvt import Crop, SolverError, ViewOptions, patch_centres, sample_crops
from dvt.preprocess import normalise, squash
from dvt.resample import resize_views
from dvt.views import patch_lines, render, whole

SIZE = (300, 420)


def test_patches_show_what_lies_where_their_centres_are_said_to_be() -> None:
    """An image whose red is x and whose green is y tells by itself where each patch of a view was cut from."""
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    pixels = np.stack([x / SIZE[1] * 255, y / SIZE[0] * 255, 0 * x], axis=0).round().astype(np.uint8)
    image = torch.from_numpy(pixels)
    crops = [whole(SIZE), *sample_crops(ViewOptions(), SIZE, "k", "fit", 20)]
    assert {crop.flip for crop in crops} == {True, False}
    centres = patch_centres(crops, SIZE, (10, 12))
    for crop, expected in zip(crops, centres, strict=True):
        view = render(image, crop, (100, 120), "bilinear").float()
        shown = view[:2].reshape(2, 10, 10, 12, 10).mean(dim=(2, 4)).permute(1, 2, 0) / 255
        middle = torch.tensor([0.5 / SIZE[1], 0.5 / SIZE[0]])  # a pixel's value is that of its left edge
        assert (shown + middle - expected).abs().max() < 0.006


def test_crops_have_the_area_aspect_and_share_of_flips_asked_for() -> None:
    crops = sample_crops(ViewOptions(), SIZE, "k", "fit", 2000)
    share = np.array([c.width * c.height / (SIZE[0] * SIZE[1]) for c in crops])
    aspect = np.array([(c.width / SIZE[1]) / (c.height / SIZE[0]) for c in crops])
    assert share.min() == pytest.approx(0.1, abs=0.01)
    assert share.max() == pytest.approx(0.5, abs=0.01)
    assert share.mean() == pytest.approx(0.3, abs=0.01)
    assert aspect.min() == pytest.approx(3 / 4, abs=0.03)
    assert aspect.max() == pytest.approx(4 / 3, abs=0.03)
    assert np.mean([c.flip for c in crops]) == pytest.approx(0.5, abs=0.04)
    assert all(c.left >= 0 and c.left + c.width <= SIZE[1] for c in crops)
    assert all(c.top >= 0 and c.top + c.height <= SIZE[0] for c in crops)


def test_sixteen_crops_to_fit_fall_one_into_each_sixteenth_of_every_range() -> None:
    """What a scrambled Sobol sequence promises of its first 2^m points, and independent draws do not keep."""
    size = (30_000, 42_000)  # so large that whole pixels hardly round

    def bins(spread: bool) -> list[list[int]]:
        crops = sample_crops(ViewOptions(spread=spread), size, "k", "fit", 16)
        left = [c.left / (size[1] - c.width + 1) for c in crops]
        top = [c.top / (size[0] - c.height + 1) for c in crops]
        area = [(c.width * c.height / (size[0] * size[1]) - 0.1) / 0.4 for c in crops]
        return [sorted(int(value * 16) for value in values) for values in (left, top, area)]

    assert bins(spread=True) == [list(range(16))] * 3
    assert bins(spread=False) != [list(range(16))] * 3
    assert sum(c.flip for c in sample_crops(ViewOptions(), size, "k", "fit", 16)) == 8


def test_seed_key_and_stream_decide_the_crops() -> None:
    def draw(seed: int = 0, key: str = "k", stream: str = "fit", count: int = 5) -> list[Crop]:
        return sample_crops(ViewOptions(seed=seed), SIZE, key, stream, count)

    assert draw() == draw()
    assert draw() == draw(count=9)[:5]
    assert draw() != draw(seed=1)
    assert draw() != draw(key="l")
    assert draw() != draw(stream="holdout")


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (7, 3)])
def test_the_smallest_images_have_views(size: tuple[int, int]) -> None:
    image = torch.full((3, *size), 77, dtype=torch.uint8)
    for crop in sample_crops(ViewOptions(), size, "k", "fit", 10):
        assert render(image, crop, (28, 28), "bicubic").unique().tolist() == [77]
    places = patch_centres(sample_crops(ViewOptions(), size, "k", "fit", 10), size, (2, 2))
    assert ((places >= 0) & (places <= 1)).all()


@pytest.mark.parametrize("size", [(64, 96), (518, 518), (37, 600)])
def test_squash_follows_pillow(size: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (30, 42, 3), dtype=np.uint8))
    image = np.array(coarse.resize((SIZE[1], SIZE[0]), Image.Resampling.BILINEAR))
    mine = squash(torch.from_numpy(image).permute(2, 0, 1), size)
    theirs = np.array(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))
    difference = np.abs(mine.permute(1, 2, 0).numpy().astype(int) - theirs)
    assert difference.max() <= 2
    assert difference.mean() < 0.2


def test_normalise_is_the_formula() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    out = normalise(images, (0.5, 0.25, 0.0), (0.5, 0.5, 2.0), torch.device("cpu"))
    torch.testing.assert_close(out.flatten(), torch.tensor([-1.0, -0.1, 0.5]))


@pytest.mark.parametrize("bad", [{"views": 0}, {"holdout": -1}, {"area": (0.5, 0.1)}, {"area": (0.0, 2.0)}])
def test_options_without_sense_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(SolverError):
        ViewOptions(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_views_by_matrix_products_are_the_views_one_by_one(interpolation: str) -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 12, 16, generator=generator)
    image = (F.interpolate(coarse, (90, 120), mode="bicubic").clamp(0, 1)[0] * 255).to(torch.uint8)
    crops = [
        whole((90, 120)),
        *sample_crops(ViewOptions(area=(0.05, 0.9)), (90, 120), "x", "fit", 12),
        Crop(3, 4, 1, 1, True),
    ]
    together = resize_views(image, crops, (42, 56), interpolation)
    for crop, view in zip(crops, together, strict=True):
        one = render(image, crop, (42, 56), interpolation)
        assert (one.int() - view.int()).abs().max() <= 1


def test_edges_are_the_original_codes_places() -> None:
    crops = [Crop(10, 20, 40, 30, False), Crop(10, 20, 40, 30, True)]
    edges = (torch.linspace(0, 1, 3), torch.linspace(0, 1, 5))
    rows, columns = patch_lines(crops, (100, 200), edges)
    torch.testing.assert_close(rows[0], torch.linspace(0.2, 0.5, 3))
    torch.testing.assert_close(columns[0], torch.linspace(0.05, 0.25, 5))
    torch.testing.assert_close(columns[1], torch.linspace(0.05, 0.25, 5).flip(0))


@pytest.mark.parametrize("bad", [{"views": 0}, {"area": (0.5, 0.1)}, {"cut": "half"}, {"place": "corners"}])
def test_views_that_cannot_be_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(SolverError):
        ViewOptions(**bad)  # type: ignore[arg-type]
