"""Method stage2: what is cleaned, what is called artifact, and that it is all the same by either way."""

import hashlib
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from denoisers import planted, published, reference

from dvt import (
    Backbone,
    Decomposition,
    Denoiser,
    DenoiserError,
    RawDecomposer,
    Stage2Decomposer,
    StoredDecomposer,
    check_lineage,
    cleaned,
    position_mean,
)

CPU = torch.device("cpu")
GRID, WIDTH = (4, 6), 192
STATE = published(WIDTH, (5, 5))
NUMBERS = np.random.default_rng(4)
IMAGES = [NUMBERS.integers(0, 256, (50 + 20 * n, 90 - 10 * n, 3), dtype=np.uint8) for n in range(3)]
ARTIFACT = torch.from_numpy(NUMBERS.standard_normal((*GRID, WIDTH))).float()
ARTIFACT -= ARTIFACT.mean(dim=(0, 1))


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone.create("vit_tiny_patch16_224", weights="random", input_size=(64, 96), device="cpu")


def in_one_pass(backbone: Backbone, batch_size: int = 4) -> list[Decomposition]:
    method = Stage2Decomposer(backbone, planted(WIDTH, (5, 5)), ARTIFACT, batch_size)
    return method.decompose([method.prepare(image, "any") for image in IMAGES])


def stored(backbone: Backbone, **options: Any) -> StoredDecomposer:
    return StoredDecomposer(planted(WIDTH, (5, 5)), ARTIFACT, backbone.recipe(), 1, CPU, **options)


def raw_maps(backbone: Backbone) -> list[Decomposition]:
    method = RawDecomposer(backbone)
    return method.decompose([method.prepare(image, "any") for image in IMAGES])


def test_the_planted_artifact_is_found_by_the_mean_over_images() -> None:
    """Images share an artifact, each has an error of its own of σ = .5: the mean over 400 errs by .5 / 20."""
    generator = np.random.default_rng(0)
    content = generator.standard_normal((400, 3, 5, 8)).astype(np.float32)
    error = 0.5 * generator.standard_normal(content.shape).astype(np.float32)
    artifact = generator.standard_normal((3, 5, 8)).astype(np.float32)
    artifact -= artifact.mean(axis=(0, 1))
    raw = content + artifact + 7.0
    clean = content + error

    def in_batches(size: int) -> torch.Tensor:
        starts = range(0, len(raw), size)
        return position_mean(
            (torch.from_numpy(raw[n : n + size]), torch.from_numpy(clean[n : n + size])) for n in starts
        )

    found = in_batches(64)
    plain = (raw.astype(np.float64) - clean).mean(axis=0)
    np.testing.assert_allclose(found, plain - plain.mean(axis=(0, 1)), atol=1e-6)
    np.testing.assert_allclose(found, artifact, atol=4.5 * 0.5 / math.sqrt(400))
    assert float((found - torch.from_numpy(artifact)).std()) == pytest.approx(0.5 / math.sqrt(400), rel=0.2)
    assert float(found.mean(dim=(0, 1)).abs().max()) < 1e-6
    for size in (1, 7, 400):
        torch.testing.assert_close(in_batches(size), found, atol=1e-6, rtol=0)
    with pytest.raises(DenoiserError, match="no image"):
        position_mean(iter(()))


def test_pairs_are_cleaned_batch_by_batch() -> None:
    batches = [torch.randn(n, 5, 5, WIDTH, generator=torch.Generator().manual_seed(n)).half() for n in (2, 1)]
    found = list(cleaned(planted(WIDTH, (5, 5)), [(raw, raw) for raw in batches], CPU))
    for (raw, clean), given in zip(found, batches, strict=True):
        assert raw.dtype == clean.dtype == torch.float32
        assert torch.equal(raw, given.float())
        torch.testing.assert_close(clean, reference(STATE, raw, (5, 5)).float(), atol=1e-4, rtol=1e-4)


def test_in_one_pass_clean_is_the_denoiser_on_raw_as_it_is_stored(backbone: Backbone) -> None:
    for found, plain in zip(in_one_pass(backbone), raw_maps(backbone), strict=True):
        raw = plain.raw.half()
        expected = reference(STATE, raw[None].float(), (5, 5))[0].float()
        assert found.clean is not None
        assert found.artifact is not None
        assert found.residual is not None
        assert found.prefix is not None
        assert found.raw.shape == (*GRID, WIDTH)
        assert torch.equal(found.raw.half(), raw)
        torch.testing.assert_close(found.clean.float(), expected, atol=1e-3, rtol=1e-3)
        assert torch.equal(found.artifact, ARTIFACT)
        torch.testing.assert_close(found.prefix, plain.prefix)
        together = found.clean.double() + found.artifact.double() + found.residual.double()
        torch.testing.assert_close(together, found.raw.double(), atol=1e-5, rtol=0)


def test_stored_features_cleaned_later_are_the_same_version(backbone: Backbone) -> None:
    method = Stage2Decomposer(backbone, planted(WIDTH, (5, 5)), ARTIFACT)
    later = stored(backbone)
    assert later.recipe() == method.recipe()
    assert json.loads(json.dumps(later.recipe())) == later.recipe()
    assert (later.grid, later.width, later.prefix_tokens) == (method.grid, method.width, method.prefix_tokens)
    kept = [(one.raw.half().numpy(), one.prefix.half().numpy()) for one in raw_maps(backbone) if one.prefix is not None]
    found = later.decompose([later.prepare_stored(*one) for one in kept])
    for one, other, (_, prefix) in zip(found, in_one_pass(backbone), kept, strict=True):
        assert one.prefix is not None
        assert torch.equal(one.raw.half(), other.raw.half())
        assert torch.equal(one.prefix, torch.from_numpy(prefix).float())
        torch.testing.assert_close(one.clean, other.clean, atol=1e-5, rtol=1e-5)
        assert torch.equal(one.artifact, other.artifact)
        for name in set(one.stats) - {"seconds"}:
            assert one.stats[name] == pytest.approx(other.stats[name], rel=1e-3)
    without = later.decompose([later.prepare_stored(kept[0][0], None)])[0]
    assert without.prefix is None
    torch.testing.assert_close(without.clean, found[0].clean, atol=1e-5, rtol=1e-5)


def test_the_size_of_a_batch_plays_no_part(backbone: Backbone) -> None:
    whole, two, single = (in_one_pass(backbone, size) for size in (3, 2, 1))
    for one, *others in zip(whole, two, single, strict=True):
        for other in others:
            assert one.clean is not None
            torch.testing.assert_close(one.raw, other.raw, atol=2e-3, rtol=1e-3)
            torch.testing.assert_close(one.clean, other.clean, atol=5e-3, rtol=1e-3)
    recipes = [stored(backbone, batch_size=size).recipe() for size in (1, 16)]
    assert recipes[0] == recipes[1]


def test_figures_are_those_of_the_plain_formulas(backbone: Backbone) -> None:
    for found in in_one_pass(backbone):
        raw, clean, artifact = (np.asarray(part, np.float64) for part in (found.raw, found.clean, found.artifact))
        norms = np.sqrt((raw**2).sum(-1))
        product = (raw * clean).sum(-1) / norms / np.sqrt((clean**2).sum(-1))
        shares = [
            part.var(axis=(0, 1)).sum() / raw.var(axis=(0, 1)).sum() for part in (artifact, raw - clean - artifact)
        ]
        expected = {"norm_min": norms.min(), "norm_max": norms.max(), "cos_raw_clean": product.mean()}
        expected |= {"norm_median": np.sort(norms.ravel())[(norms.size - 1) // 2]}
        expected |= {"artifact_share": shares[0], "residual_share": shares[1]}
        assert found.stats["seconds"] > 0
        assert {k: v for k, v in found.stats.items() if k != "seconds"} == pytest.approx(expected, rel=2e-3)


def test_the_recipe_tells_what_decides_the_numbers(backbone: Backbone) -> None:
    recipe = stored(backbone).recipe()
    data = np.asarray(ARTIFACT, "<f4").tobytes()
    assert recipe["backbone"] == backbone.recipe()
    assert recipe["method"] == {
        "name": "stage2",
        "denoiser": planted(WIDTH, (5, 5)).digest(),
        "artifact": hashlib.sha256(data).hexdigest(),
        "raw": "float16",
        "dtype": "float32",
    }
    assert stored(backbone, dtype="bfloat16").recipe() != recipe


def test_bfloat16_is_near_float32_and_not_it(backbone: Backbone) -> None:
    raw = torch.randn(1, *GRID, WIDTH, generator=torch.Generator().manual_seed(2))
    exact, rough = (stored(backbone, dtype=dtype).clean(raw) for dtype in ("float32", "bfloat16"))
    assert rough.dtype == torch.float32
    assert 1e-4 < float((rough - exact).norm() / exact.norm()) < 2e-2


def trained_on(recipe: dict[str, Any], **changes: Any) -> Denoiser:
    denoiser = planted(WIDTH, (5, 5))
    denoiser.facts = {"backbone": recipe | changes}
    return denoiser


@pytest.mark.parametrize(
    "changes",
    [{"weights": "other"}, {"layer": 3}, {"norm": False}, {"id": "vit"}, {"mean": [0.1, 0.2, 0.3]}, {"std": [1, 1, 1]}],
    ids=str,
)
def test_a_denoiser_of_other_features_is_refused_by_name(changes: dict[str, Any], backbone: Backbone) -> None:
    (key, value), recipe = next(iter(changes.items())), backbone.recipe()
    denoiser = trained_on(recipe, **changes)
    with pytest.raises(DenoiserError, match=f"trained on other features: {key} ") as caught:
        check_lineage(denoiser, recipe)
    assert str(value) in str(caught.value)
    assert str(recipe[key])[:40] in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(DenoiserError, match=f": {key} "):
        Stage2Decomposer(backbone, denoiser, ARTIFACT)
    with pytest.raises(DenoiserError, match=f": {key} "):
        StoredDecomposer(denoiser, ARTIFACT, recipe, 1, CPU)


def test_another_input_size_or_no_word_of_lineage_is_fine(backbone: Backbone) -> None:
    recipe = backbone.recipe()
    for denoiser in (trained_on(recipe, input=[224, 224], dtype="bfloat16"), planted(WIDTH, (5, 5)), trained_on({})):
        assert StoredDecomposer(denoiser, ARTIFACT, recipe, 1, CPU).recipe()["backbone"] == recipe


@pytest.mark.parametrize("shape", [(6, 4, WIDTH), (4, 6, 128), (5, 5, WIDTH)])
def test_an_artifact_of_another_shape_is_told(shape: tuple[int, int, int], backbone: Backbone) -> None:
    with pytest.raises(DenoiserError, match=r"do not fit features of \(4, 6, 192\)") as caught:
        Stage2Decomposer(backbone, planted(WIDTH, (5, 5)), torch.zeros(shape))
    assert str(shape) in str(caught.value)
    with pytest.raises(DenoiserError, match=r"do not fit features of \(4, 6, 192\)"):
        Stage2Decomposer(backbone, planted(128, (5, 5)), ARTIFACT)
    with pytest.raises(DenoiserError, match="the denoiser is for 128 channels, the features have 192"):
        StoredDecomposer(planted(128, (5, 5)), ARTIFACT, backbone.recipe(), 1, CPU)


def test_images_are_no_stored_features_and_time_is_told(backbone: Backbone) -> None:
    method = stored(backbone, batch_size=2)
    with pytest.raises(DenoiserError, match="stored features are cleaned here"):
        method.prepare(IMAGES[0], "any")
    denoiser_alone = method.seconds_per_image()
    assert 0 < denoiser_alone < 5
    assert 0 < Stage2Decomposer(backbone, planted(WIDTH, (5, 5)), ARTIFACT, 2).seconds_per_image() < 10
