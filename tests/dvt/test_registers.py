"""Method test-time-registers: a planted register neuron is found and its outlier moved; without one nothing changes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dvt import Backbone, BackboneError, RawDecomposer, RegisterOptions, RegistersDecomposer, SolverError, find_neurons
from dvt.preprocess import normalise
from dvt.registers import check_blocks, run, watched, with_register
from featstore.images import decode

GRID, WIDTH, PLANTED = (4, 6), 64, (2, 37)
GENERATOR = np.random.default_rng(0)
IMAGES = [GENERATOR.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(6)]
STRIPES = np.where(np.arange(16)[:, None, None] % 2, 195, 60)
for number, image in enumerate(IMAGES):
    image[16:32, 16 * number : 16 * number + 16] = STRIPES  # the odd patch (1, number), no brighter than the others


def backbone(**options: Any) -> Backbone:
    return Backbone.create("test_vit", weights="random", input_size=(64, 96), device="cpu", **options)


def prepared(of: Backbone) -> list[Tensor]:
    loader = RawDecomposer(of)
    return [loader.prepare(image, "any") for image in IMAGES]


def planted(**options: Any) -> Backbone:
    """Block 2's hidden neuron 37 fires at the odd patch, and writes a long vector there."""
    made = backbone(**options)
    block, seen = made.model.blocks[PLANTED[0]], []
    handle = block.norm2.register_forward_hook(lambda module, given, tokens: seen.append(tokens[:, 1:]))
    run(made, prepared(made))
    handle.remove()
    (tokens,) = seen
    odd = torch.stack([tokens[number, 6 + number] for number in range(len(IMAGES))])
    others = torch.stack([tokens[n, [p for p in range(24) if p != 6 + n]] for n in range(len(IMAGES))])
    direction = F.normalize(odd.mean(dim=0) - others.mean(dim=(0, 1)), dim=0)
    middle = ((odd @ direction).min() + (others @ direction).max()) / 2
    assert (odd @ direction).min() > (others @ direction).max()
    scale = 4 / ((odd @ direction).min() - middle)
    with torch.no_grad():
        block.mlp.fc1.weight[PLANTED[1]] = scale * direction
        block.mlp.fc1.bias[PLANTED[1]] = -scale * (middle + 1 / scale)
        block.mlp.fc2.weight[:, PLANTED[1]] = 60 * F.normalize(torch.arange(WIDTH).float().sin(), dim=0)
    return made


def ratios(tokens: Tensor) -> Tensor:
    lengths = tokens.norm(dim=-1)
    return lengths / lengths.median(dim=1, keepdim=True).values


def by_hand(made: Backbone, image: Tensor, moved: dict[int, list[int]]) -> Tensor:
    """All tokens after the last block with a register at the end, in float64, block by block, without a hook."""
    model: Any = made.model.double()
    try:
        given = normalise(image[None], made.mean, made.std, made.device).double()
        tokens = model.norm_pre(model._pos_embed(model.patch_embed(given)))
        tokens = torch.cat([tokens, torch.zeros(1, 1, WIDTH, dtype=torch.float64)], dim=1)
        for number, block in enumerate(model.blocks):
            tokens = tokens + block.ls1(block.attn(block.norm1(tokens)))
            hidden = F.gelu(block.mlp.fc1(block.norm2(tokens)))
            for neuron in moved.get(number, []):
                strongest = max(hidden[0, :, neuron].tolist(), key=abs)
                hidden[0, 1:-1, neuron] = 0
                hidden[0, -1, neuron] = strongest
            tokens = tokens + block.ls2(block.mlp.fc2(hidden))
        return tokens[0]
    finally:
        made.model.float()


def test_a_planted_neuron_is_found_and_its_outliers_move_to_the_extra_token() -> None:
    made = planted(norm=False)
    images = prepared(made)
    raw = run(made, images)[0]
    high = ratios(raw) > 3
    assert high.nonzero().tolist() == [[number, 6 + number] for number in range(6)]
    for size in (1, 4):
        assert find_neurons(made, images, RegisterOptions(neurons=1), size) == (PLANTED,)
    assert find_neurons(made, images, RegisterOptions(neurons=5))[0] == PLANTED
    assert all(block <= PLANTED[0] for block, _ in find_neurons(made, images, RegisterOptions(neurons=30)))
    with with_register(made, (PLANTED,)):
        found = run(made, images)[0]
    assert found.shape[1] == raw.shape[1] + 1
    assert float(ratios(found[:, :-1]).max()) < 3
    assert float((found[:, -1].norm(dim=-1) / found[:, :-1].norm(dim=-1).median()).min()) > 3
    assert torch.equal(run(made, images)[0], raw)  # and the model is as it was


@pytest.mark.parametrize("moved", [(PLANTED,), (PLANTED, (2, 5), (4, 100), (0, 0))])
def test_the_forward_is_that_of_blocks_taken_one_by_one(moved: tuple[tuple[int, int], ...]) -> None:
    made = planted(norm=False)
    images = prepared(made)
    with with_register(made, moved):
        patches, prefix = run(made, images)
    own: dict[int, list[int]] = {}
    for block, neuron in moved:
        own.setdefault(block, []).append(neuron)
    for number, image in enumerate(images[:2]):
        expected = by_hand(made, image, own).float().detach()
        torch.testing.assert_close(torch.cat([prefix[number], patches[number]]), expected, atol=1e-3, rtol=1e-4)


def test_without_outliers_there_are_no_neurons_and_clean_is_raw_bit_for_bit() -> None:
    made = backbone()
    images = prepared(made)
    assert find_neurons(made, images) == ()
    method = RegistersDecomposer(made, (), torch.zeros(*GRID, WIDTH), 2)
    assert method.forwards_per_image == 1
    assert "clean is raw" in method.notes[0]
    for one in method.decompose(images):
        assert torch.equal(one.raw, one.clean)
        assert float(one.residual.abs().max()) == 0
    with pytest.raises(SolverError, match="no image"):
        find_neurons(made, [])
    with pytest.raises(SolverError, match="at least one neuron"):
        RegisterOptions(neurons=0)


def test_the_maps_add_up_and_the_recipe_lists_the_neurons() -> None:
    made = planted()
    artifact = torch.randn(*GRID, WIDTH, generator=torch.Generator().manual_seed(0))
    method = RegistersDecomposer(made, (PLANTED, (0, 3)), artifact, 2)
    assert (method.forwards_per_image, method.recipe()["method"]["neurons"]) == (2, [[0, 3], [2, 37]])
    images = prepared(made)
    with with_register(made, method.neurons):
        expected = run(made, images)[0][:, :-1].reshape(6, *GRID, WIDTH)
    for start in (0, 2, 4):
        for one, clean, image in zip(
            method.decompose(images[start : start + 2]), expected[start:], IMAGES[start:], strict=False
        ):
            torch.testing.assert_close(one.clean, clean, atol=1e-4, rtol=1e-4)
            plain = RawDecomposer(made)
            (raw,) = plain.decompose([plain.prepare(image, "any")])
            torch.testing.assert_close(one.raw, raw.raw, atol=4e-3, rtol=1e-3)
            torch.testing.assert_close(one.prefix, raw.prefix, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(one.clean + one.artifact + one.residual, one.raw, atol=1e-5, rtol=0)
    raw, clean = method.pair(images)
    assert torch.equal(raw, raw.half().float())
    torch.testing.assert_close(clean, expected, atol=1e-4, rtol=1e-4)
    for wrong in ((6, 0), (0, 192)):
        with pytest.raises(BackboneError, match=f"no hidden neuron {wrong[1]} in block {wrong[0]} of test_vit"):
            RegistersDecomposer(made, (wrong,), artifact)


def test_gated_mlps_are_moved_before_their_last_layer() -> None:
    made = Backbone.create("vit_tiny_patch16_224", weights="random", input_size=(64, 96), device="cpu")
    from timm.layers import SwiGLU

    made.model.blocks[1].mlp = SwiGLU(192, 40).eval()
    loader = RawDecomposer(made)
    images = [loader.prepare(image, "any") for image in IMAGES[:2]]
    seen: list[Tensor] = []
    handle = made.model.blocks[1].mlp.norm.register_forward_hook(lambda module, given, hidden: seen.append(hidden))
    second: list[Tensor] = []
    other = made.model.blocks[1].mlp.fc2.register_forward_pre_hook(lambda module, given: second.append(given[0]))
    with with_register(made, ((1, 7),)):
        mover = made.model.blocks[1].mlp.fc2._forward_pre_hooks
        assert len(mover) == 2
        run(made, images)
    handle.remove()
    other.remove()
    assert seen[0].shape == (2, 26, 40)


def test_models_that_take_no_extra_token_are_refused_by_name() -> None:
    made = Backbone.create("eva02_tiny_patch14_224", weights="random", input_size=(56, 56), device="cpu")
    with pytest.raises(BackboneError, match="cannot add a token to eva02_tiny_patch14_224: choose a plain vision"):
        check_blocks(made)


def test_real_outliers_at_the_corners_go(shared: Path) -> None:
    """ViT-Ti/16 of Tiny ImageNet has norm outliers at its corners, twenty times the median before the final norm."""
    weights = shared / "data" / "weights" / "vit_tiny_patch16_224-tinyimagenet.safetensors"
    made = Backbone.create("vit_tiny_patch16_224", weights=weights, input_size=(224, 224), norm=False, device="cpu")
    loader = RawDecomposer(made)
    photographs = sorted((shared / "data" / "bsds-train").glob("*.jpg"))[:8]
    images = [loader.prepare(decode(path.read_bytes()), "any") for path in photographs]
    before = ratios(run(made, images)[0])
    assert float(before.amax(dim=1).median()) > 15
    neurons = find_neurons(made, images)
    assert len(neurons) == 10
    norms = watched(made, check_blocks(made), images)
    onset = int(((norms.amax(dim=2) / norms.median(dim=2).values).mean(dim=0) > 3).int().argmax())
    assert max(block for block, _ in neurons) == onset
    with with_register(made, neurons):
        after = ratios(run(made, images)[0][:, :-1])
    assert float(after.max()) < 2
