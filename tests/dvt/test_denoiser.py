"""What a denoiser computes: the original code's numbers, a block written out slowly, blocks one after another."""

from pathlib import Path

import numpy as np
import pytest
import torch
from denoisers import planted, published, reference

from dvt import Denoiser, DenoiserError, WeightsError, read_weights

GOLDEN = Path(__file__).parents[1] / "data" / "denoiser_c128_p9.pth"
BACKBONE = "vit_base_patch14_dinov2.lvd142m"


def features(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("grid", ["9x9", "12x12", "6x6"])
def test_the_original_codes_numbers_come_out(grid: str) -> None:
    """The file beside the checkpoint holds the first image of each pair of arrays that the original code gave."""
    with np.load(GOLDEN.with_suffix(".npz")) as stored:
        raw, expected = (torch.from_numpy(stored[f"{way}_{grid}"]) for way in ("in", "out"))
    denoiser = Denoiser.from_checkpoint(GOLDEN)
    assert (denoiser.width, denoiser.grid, denoiser.blocks) == (128, (9, 9), 1)
    with torch.inference_mode():
        clean = denoiser(raw)
    torch.testing.assert_close(clean, expected, atol=1e-5, rtol=0)
    assert (clean - raw).abs().mean() > 0.01


@pytest.mark.parametrize("own", [(9, 9), (6, 12), (4, 9)])
@pytest.mark.parametrize("given", [(6, 12), (6, 6), (9, 4), (13, 5)])
def test_rectangular_grids_give_what_the_block_written_out_gives(own: tuple[int, int], given: tuple[int, int]) -> None:
    state, denoiser = published(128, own), planted(128, own)
    raw = features(2, *given, 128)
    with torch.inference_mode():
        clean = denoiser(raw)
    torch.testing.assert_close(clean, reference(state, raw, own).float(), atol=2e-5, rtol=1e-5)


def test_positions_stand_row_by_row() -> None:
    """Fresh, a denoiser adds its embedding and nothing else: it stands where the features of its grid stand."""
    denoiser = Denoiser.fresh(64, (3, 5))
    assert denoiser.pos_embed is not None
    added = denoiser(torch.zeros(1, 3, 5, 64))[0]
    for row in range(3):
        for column in range(5):
            torch.testing.assert_close(added[row, column], denoiser.pos_embed[0, 5 * row + column], atol=1e-7, rtol=0)


@pytest.mark.parametrize("grid", [(5, 5), None], ids=["position", "no position"])
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_blocks_of_the_published_layout_come_one_after_another(
    blocks: int, grid: tuple[int, int] | None, tmp_path: Path
) -> None:
    state = published(64, grid, blocks, seed=blocks)
    torch.save({"denoiser": state}, tmp_path / "d.pth")
    denoiser = Denoiser.from_checkpoint(tmp_path / "d.pth", width=64)
    assert (denoiser.width, denoiser.grid, denoiser.blocks) == (64, grid, blocks)
    raw = features(2, 5, 5, 64)
    step = raw
    with torch.inference_mode():
        for number in range(blocks):
            place = "denoiser." if blocks == 1 else f"denoiser.{number}."
            single = Denoiser(64, grid if number == 0 else None)
            part = {f"denoiser.{k.removeprefix(place)}": v for k, v in state.items() if k.startswith(place)}
            part |= {"pos_embed": state["pos_embed"]} if single.grid else {}
            single.load_state_dict(part)
            step = single(step)
        clean = denoiser(raw)
    torch.testing.assert_close(clean, step, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(clean, reference(state, raw, grid).float(), atol=5e-5, rtol=1e-5)


def test_a_published_file_of_full_size_runs_on_its_grid_and_on_another(tmp_path: Path) -> None:
    state = published(768, (37, 37))
    path = tmp_path / f"{BACKBONE}.pth"
    torch.save({"denoiser": state, "optimizer": {"lr": 1e-4}, "step": 40_000}, path)
    assert 30e6 < path.stat().st_size < 35e6
    denoiser = Denoiser.from_checkpoint(path, backbone="dinov2_b", width=768)
    assert (denoiser.width, denoiser.grid, denoiser.blocks) == (768, (37, 37), 1)
    for grid in ((37, 37), (10, 20)):
        raw = features(1, *grid, 768)
        with torch.inference_mode():
            clean = denoiser(raw)
        torch.testing.assert_close(clean, reference(state, raw, (37, 37)).float(), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_fresh_one_is_the_identity_and_its_position_embedding(blocks: int) -> None:
    raw = features(2, 4, 6, 128)
    plain, placed = Denoiser.fresh(128, None, blocks), Denoiser.fresh(128, (4, 6), blocks)
    assert placed.pos_embed is not None
    with torch.inference_mode():
        torch.testing.assert_close(plain(raw), raw, atol=0, rtol=0)
        torch.testing.assert_close(placed(raw), raw + placed.pos_embed.reshape(4, 6, 128), atol=1e-6, rtol=0)
    assert float(placed.pos_embed.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert plain.source == placed.source == "fresh"


def test_a_seed_decides_a_fresh_one_and_leaves_the_callers_state() -> None:
    state = torch.random.get_rng_state()
    digests = [Denoiser.fresh(64, (3, 3), seed=seed).digest() for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(1)
    assert Denoiser.fresh(64, (3, 3), seed=0).digest() == digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(("width", "blocks", "words"), [(96, 1, "96 channels.*64"), (64, 0, "one block or more")])
def test_what_cannot_be_made_is_told(width: int, blocks: int, words: str) -> None:
    with pytest.raises(DenoiserError, match=words) as caught:
        Denoiser.fresh(width, None, blocks)
    assert "\n" not in str(caught.value)


def test_one_that_begins_without_an_artifact_takes_it_off() -> None:
    content, artifact = features(3, 4, 6, 64), features(1, 4, 6, 64)[0]
    fresh = Denoiser.fresh(64, (4, 6))
    fresh.begin_without(artifact)
    with torch.inference_mode():
        torch.testing.assert_close(fresh(content + artifact), content, atol=1e-5, rtol=0)
    for other, shape in ((Denoiser.fresh(64, None), artifact), (fresh, artifact[:3])):
        with pytest.raises(DenoiserError, match="no position embedding of shape"):
            other.begin_without(shape)


def test_loading_one_leaves_the_callers_random_state(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    path.write_bytes(Denoiser.fresh(64, (3, 3)).to_bytes({}))
    state = torch.random.get_rng_state()
    Denoiser.from_checkpoint(path)
    assert torch.equal(torch.random.get_rng_state(), state)
    with pytest.raises(WeightsError, match="--denoiser"):
        read_weights(path)
