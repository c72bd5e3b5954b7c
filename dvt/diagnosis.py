"""A backbone examined: token norms after each block, and how much of each block's features is position.

The question of facebookresearch/dinov2 issue 373. Norms are read before the final norm, which hides large ones.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from .backbone import Backbone
from .errors import BackboneError
from .outliers import OutlierRule, Place, Spread, frequent_places, log_edges, spread_of
from .position import MIC_PAIRS, PositionShare, chance_mic, mic_channels, position_mic
from .precision import autocast
from .preprocess import normalise, squash
from .raw import as_tensor
from .tiled import crops_anywhere
from .tokens import final_norm, prefix_names, tokens_after

__all__ = ["Diagnosis", "LayerDiagnosis", "diagnose", "diagnose_maps", "spread_blocks"]


@dataclass(frozen=True)
class LayerDiagnosis:
    """One layer over N images: ``block`` from 0 (None for stored maps), ``normed`` after the final norm.

    ``norms`` (N, H, W) of patch tokens, ``prefix_norms`` (N, T). ``share_images`` and ``share_crops`` are the position share
    over whole images, and over crops in which content lies anywhere; ``mic`` is ``position_mic`` of whole images. NaN where
    nothing was asked or can be told.
    """

    name: str
    block: int | None
    normed: bool
    norms: NDArray[np.float32]
    prefix_norms: NDArray[np.float32]
    share_images: float
    share_crops: float
    mic: float

    def spread(self, rule: OutlierRule) -> Spread:
        """Sum up its norms."""
        return spread_of(self.norms, rule)

    def places(self, rule: OutlierRule) -> list[Place]:
        """Return where its outliers lie, the most frequent first."""
        return frequent_places(self.norms, rule)

    def histogram(self, bins: int = 48) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return edges (bins + 1,) of equal ratio, and how many tokens lie between them."""
        edges = log_edges([self.norms], bins)
        return edges, np.histogram(self.norms, edges)[0]


@dataclass(frozen=True)
class Diagnosis:
    """What ``diagnose`` found. ``mic_chance`` is the level of independent numbers, NaN without a MIC."""

    layers: tuple[LayerDiagnosis, ...]
    prefix: tuple[str, ...]
    grid: tuple[int, int]
    images: int
    crops: int
    mic_chance: float


class Tally:
    """What is kept of one layer while inputs go by."""

    def __init__(self, name: str, block: int | None, normed: bool, look: bool) -> None:
        self.name, self.block, self.normed, self.look = name, block, normed, look
        self.shares = PositionShare(), PositionShare()
        self.norms: list[Tensor] = []
        self.prefix: list[Tensor] = []
        self.kept: list[Tensor] = []

    def add(
        self, maps: Float[Tensor, "n h w c"], prefix: Float[Tensor, "n t c"] | None = None, crops: bool = False
    ) -> None:
        """Add whole images, or crops."""
        self.shares[crops].add(maps)
        if not crops:
            if self.look and len(self.kept) < MIC_PAIRS:
                self.kept.append(maps[..., mic_channels(maps.shape[-1])].cpu())
            self.norms.append(maps.norm(dim=-1).cpu())
            self.prefix.append(maps.new_zeros(len(maps), 0).cpu() if prefix is None else prefix.norm(dim=-1).cpu())

    def layer(self) -> LayerDiagnosis:
        """Return what it came to."""
        mic = position_mic(torch.cat(self.kept)) if self.kept else float("nan")
        norms, prefix = (torch.cat(values).numpy() for values in (self.norms, self.prefix))
        whole, crops = (share.value() for share in self.shares)
        return LayerDiagnosis(self.name, self.block, self.normed, norms, prefix, whole, crops, mic)


def spread_blocks(depth: int, count: int = 4) -> tuple[int, ...]:
    """Return ``count`` blocks at even distances, the last among them."""
    return tuple(sorted({round((number + 1) * depth / count) - 1 for number in range(count)} - {-1}))


def diagnose(
    backbone: Backbone,
    images: Iterable[tuple[NDArray[np.uint8], str]],
    look: Sequence[int] | None = None,
    crops: int = 0,
    batch_size: int = 4,
    advance: Callable[[int], None] = lambda count: None,
) -> Diagnosis:
    """Run (h, w, 3) images, each with a key, and ``crops`` crops of each in which content lies anywhere (``crops_anywhere``).

    ``look`` are the blocks to take the MIC of, the last normed beside them; None is ``spread_blocks``. ``advance`` is told how
    many inputs are done. Raises BackboneError without an image, or for a block that there is not.
    """
    chosen = spread_blocks(backbone.depth) if look is None else tuple(look)
    if wrong := [block for block in chosen if not 0 <= block < backbone.depth]:
        raise BackboneError(f"there is no block {wrong[0]}: this backbone has blocks 0 to {backbone.depth - 1}")
    norm = final_norm(backbone.model)
    tallies = [Tally(f"{block}", block, False, block in chosen) for block in range(backbone.depth)]
    if norm is not None:
        tallies.append(Tally("norm", backbone.depth - 1, True, bool(chosen)))
    waiting: list[tuple[Tensor, bool]] = []
    inputs = [0, 0]
    for pixels, key in images:
        whole = squash(backbone.frame(as_tensor(pixels)), backbone.input_size, backbone.interpolation)
        waiting += [(whole, False)] + [(crop, True) for crop in crops_anywhere(pixels, key, crops, backbone)]
        inputs = [inputs[0] + 1, inputs[1] + crops]
        while len(waiting) >= batch_size:
            run(backbone, tallies, waiting[:batch_size])
            advance(batch_size)
            waiting = waiting[batch_size:]
    if waiting:
        run(backbone, tallies, waiting)
        advance(len(waiting))
    if not inputs[0]:
        raise BackboneError("there is no image to look at")
    chance = chance_mic(backbone.grid) if chosen else float("nan")
    names = prefix_names(backbone.model, tallies[0].prefix[0].shape[1])
    return Diagnosis(tuple(tally.layer() for tally in tallies), names, backbone.grid, inputs[0], inputs[1], chance)


@torch.inference_mode()
def run(backbone: Backbone, tallies: Sequence[Tally], inputs: Sequence[tuple[Tensor, bool]]) -> None:
    """Put one batch of inputs, crops or not, through the model, and what comes of it into the tallies."""
    batch = torch.stack([one for one, _ in inputs])
    crop = torch.tensor([is_crop for _, is_crop in inputs], device=backbone.device)
    with autocast(backbone.device, backbone.dtype):
        pixels = normalise(batch, backbone.mean, backbone.std, backbone.device)
        tokens = tokens_after(backbone.model, pixels, range(backbone.depth), norm=False)
        if len(tallies) > len(tokens) and (norm := final_norm(backbone.model)) is not None:
            tokens.append((norm(tokens[-1][0]), norm(tokens[-1][1])))
    for tally, (patches, prefix) in zip(tallies, tokens, strict=True):
        maps = patches.float().reshape(len(batch), *backbone.grid, -1)
        for taken, is_crop in ((~crop, False), (crop, True)):
            if taken.any():
                tally.add(maps[taken], prefix.float()[taken], is_crop)


def diagnose_maps(images: Iterable[Mapping[str, Float[Tensor, "h w c"]]]) -> Diagnosis:
    """Examine maps that are there already, by name (raw, clean …), the same names for every image, all of one grid.

    Raises BackboneError without an image.
    """
    tallies: dict[str, Tally] = {}
    for maps in images:
        for name, values in maps.items():
            tallies.setdefault(name, Tally(name, None, False, True)).add(values.float()[None])
    if not tallies:
        raise BackboneError("there is no image to look at")
    layers = tuple(tally.layer() for tally in tallies.values())
    count, height, width = layers[0].norms.shape
    return Diagnosis(layers, (), (height, width), count, 0, chance_mic((height, width)))
