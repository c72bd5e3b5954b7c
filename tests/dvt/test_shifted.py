"""Method shift-mean on planted content and artifact: where views are put back, and what averaging leaves."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from dvt import Backbone, RawDecomposer, ShiftMeanDecomposer, ShiftOptions, SolverError
from dvt import shifted as module
from dvt.shifted import Move, put_back, sample_moves, shifted

GRID, WIDTH = (4, 6), 192
IMAGE = np.random.default_rng(3).integers(0, 256, (60, 100, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone.create("vit_tiny_patch16_224", weights="random", input_size=(64, 96), device="cpu")


def colours(image: Tensor) -> Tensor:
    """Content that moves with the pixels: each patch's mean colour."""
    means = torch.nn.functional.adaptive_avg_pool2d(image.double(), GRID).permute(1, 2, 0)
    return means.repeat(1, 1, WIDTH // 3).float()


def plant(monkeypatch: pytest.MonkeyPatch, artifact: Tensor) -> None:
    def model(_: object, views: list[Tensor]) -> tuple[Tensor, Tensor]:
        return torch.stack([colours(view) + artifact for view in views]), torch.zeros(len(views), 1, WIDTH)

    monkeypatch.setattr(module, "raw_of", model)


def test_without_an_artifact_every_view_agrees_and_nothing_is_changed(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So shifts and mirror images are put back where they belong, and what was filled in counts for nothing."""
    plant(monkeypatch, torch.zeros(*GRID, WIDTH))
    method = ShiftMeanDecomposer(backbone, ShiftOptions(views=40))
    prepared = method.prepare(IMAGE, "a")
    assert len({(move.down, move.right, move.flip) for move in prepared.moves}) > 8
    (found,) = method.decompose([prepared])
    torch.testing.assert_close(found.clean, colours(prepared.image), atol=1e-3, rtol=0)
    assert float(found.artifact.abs().max()) < 1e-3


@pytest.mark.parametrize("views", [20, 400])
def test_a_planted_artifact_is_averaged_away(views: int, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """An artifact of σ = 20, independent at each position: a place seen at k of the 24 errs by about σ · √(1/k − 1/24)."""
    artifact = 20 * torch.randn(*GRID, WIDTH, generator=torch.Generator().manual_seed(0))
    artifact -= artifact.mean(dim=(0, 1))
    plant(monkeypatch, artifact)
    method = ShiftMeanDecomposer(backbone, ShiftOptions(views=views, reach=0.5))
    prepared = method.prepare(IMAGE, "a")
    (found,) = method.decompose([prepared])
    content = colours(prepared.image)
    error = (found.clean - content).square().mean().sqrt()
    assert float((found.raw - content).square().mean().sqrt()) == pytest.approx(20, rel=0.05)
    assert float(error) < (3.5 if views == 400 else 11)
    kept = torch.nn.functional.cosine_similarity(found.artifact.flatten(), artifact.flatten(), dim=0)
    assert float(kept) > 0.9
    together = found.clean + found.artifact + found.residual
    torch.testing.assert_close(together, found.raw, atol=1e-3, rtol=0)
    assert float(found.artifact.mean(dim=(0, 1)).abs().max()) < 1e-4


def test_views_are_put_back_as_a_slow_loop_does() -> None:
    generator = torch.Generator().manual_seed(1)
    moves = sample_moves(ShiftOptions(views=7, reach=0.4), (3, 5), "key")
    features = torch.randn(7, 3, 5, 2, generator=generator)
    clean, artifact = put_back(features, moves)
    at: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for number, move in enumerate(moves):
        for row in range(3):
            for column in range(5):
                shown = 4 - column if move.flip else column
                place = row + move.down, shown + move.right
                if 0 <= place[0] < 3 and 0 <= place[1] < 5:
                    at.setdefault(place, []).append((number, row, column))
    plain = torch.zeros(3, 5, 2)
    for place, seen in at.items():
        plain[place] = torch.stack([features[one] for one in seen]).mean(dim=0)
    torch.testing.assert_close(clean, plain)
    left: dict[tuple[int, int], list[Tensor]] = {}
    for place, seen in at.items():
        for number, row, column in seen:
            left.setdefault((row, column), []).append(features[number, row, column] - plain[place])
    mean = torch.stack([torch.stack([torch.stack(left[r, c]).mean(dim=0) for c in range(5)]) for r in range(3)])
    torch.testing.assert_close(artifact, mean - mean.mean(dim=(0, 1)))


@pytest.mark.parametrize("move", [Move(1, -2, False), Move(0, 0, True), Move(-1, 1, True)])
def test_a_view_is_the_image_moved_by_whole_patches(move: Move) -> None:
    image = torch.arange(3 * 8 * 12, dtype=torch.uint8).reshape(3, 8, 12)
    view = shifted(image, move, 2)
    upright = view.flip(-1) if move.flip else view
    down, right = 2 * move.down, 2 * move.right
    for row in range(8):
        for column in range(12):
            there = row + down, column + right
            if 0 <= there[0] < 8 and 0 <= there[1] < 12:
                assert torch.equal(upright[:, row, column], image[:, there[0], there[1]])
    assert set(view.flatten().tolist()) <= set(image.flatten().tolist())  # reflected, not made up


def test_the_key_decides_the_views_and_more_begin_with_the_same() -> None:
    few, more = (sample_moves(ShiftOptions(views=count), (16, 16), "a") for count in (5, 12))
    assert more[:5] == few
    assert few[0] == Move(0, 0, False)
    assert sample_moves(ShiftOptions(views=12), (16, 16), "b") != more
    assert sample_moves(ShiftOptions(views=12, seed=1), (16, 16), "a") != more
    many = sample_moves(ShiftOptions(views=300), (16, 37), "a")
    assert {abs(move.down) for move in many} == set(range(3))  # 15 % of 16 patches
    assert {abs(move.right) for move in many} == set(range(7))
    assert 120 < sum(move.flip for move in many) < 180


def test_raw_is_that_of_method_raw_and_the_recipe_tells_all(backbone: Backbone) -> None:
    method, plain = ShiftMeanDecomposer(backbone, ShiftOptions(views=4), 2), RawDecomposer(backbone)
    assert (method.forwards_per_image, method.variants) == (4, ("raw", "clean", "artifact", "residual"))
    (found,) = method.decompose([method.prepare(IMAGE, "a")])
    (expected,) = plain.decompose([plain.prepare(IMAGE, "a")])
    torch.testing.assert_close(found.raw, expected.raw, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.prefix, expected.prefix, atol=1e-4, rtol=1e-4)
    recipe = method.recipe()
    assert json.loads(json.dumps(recipe)) == recipe
    assert recipe["method"] == {"name": "shift-mean", "shift": {"views": 4, "reach": 0.15, "flip": 0.5, "seed": 0}}
    for wrong in ({"views": 1}, {"reach": 0.0}, {"reach": 0.6}):
        with pytest.raises(SolverError, match="at least two views"):
            ShiftOptions(**wrong)
