"""The denoiser of stage 2: one look at raw features, clean ones back (DVT, arXiv 2401.02957, section 3.3)."""

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from .denoiser_file import Layout, read_checkpoint
from .errors import DenoiserError
from .seeding import seeded

__all__ = ["Denoiser"]

HEAD = 64  # channels a head
POSITION_STD = 0.02


class Denoiser(nn.Module):
    """A learned position embedding, added, then one or more pre-norm Transformer blocks; C channels in and out.

    ``grid`` (H, W) [patches] is that of the embedding, resampled (bicubic, antialiased) for inputs of another grid, also
    rectangular ones; None leaves it out. ``blocks`` is how many; each has C/64 heads, an MLP of 4C, LayerNorm eps 1e-6. The
    names of the parameters are those of the published checkpoints. Fresh blocks start as the identity (the projections that
    end their branches are zero; ours), so that training starts from raw. Raises DenoiserError where C is no multiple of 64.
    """

    source = "fresh"

    def __init__(self, width: int, grid: tuple[int, int] | None, blocks: int = 1) -> None:
        super().__init__()
        if width % HEAD:
            raise DenoiserError(f"features of {width} channels cannot be denoised: heads have {HEAD} channels each")
        if blocks < 1:
            raise DenoiserError("a denoiser has one block or more")
        self.width, self.grid, self.blocks = width, grid, blocks
        self.facts: dict[str, Any] = {}
        self.artifact: Tensor | None = None
        self.pos_embed = None
        if grid is not None:
            self.pos_embed = nn.Parameter(torch.randn(1, grid[0] * grid[1], width) * POSITION_STD)
        norm = partial(nn.LayerNorm, eps=1e-6)
        layers = [Block(width, width // HEAD, mlp_ratio=4.0, qkv_bias=True, norm_layer=norm) for _ in range(blocks)]
        for layer in layers:
            for end in (layer.attn.proj, layer.mlp.fc2):
                nn.init.zeros_(end.weight)
                nn.init.zeros_(end.bias)
        self.denoiser = layers[0] if blocks == 1 else nn.Sequential(*layers)

    @torch.no_grad()
    def begin_without(self, artifact: Float[Tensor, "h w c"]) -> None:
        """Have the position embedding take ``artifact`` off raw, so that a fresh denoiser starts from raw − artifact.

        Raises DenoiserError where there is no embedding, or it has another shape.
        """
        if self.pos_embed is None or self.pos_embed.numel() != artifact.numel():
            raise DenoiserError(f"there is no position embedding of shape {tuple(artifact.shape)} to begin with")
        self.pos_embed.copy_(-artifact.reshape(self.pos_embed.shape))

    def forward(self, raw: Float[Tensor, "n h w c"]) -> Float[Tensor, "n h w c"]:
        """Return clean features for raw ones, on whatever grid."""
        count, height, width, channels = raw.shape
        tokens = raw.reshape(count, height * width, channels)
        if self.pos_embed is not None and self.grid is not None:
            tokens = tokens + resampled(self.pos_embed, self.grid, (height, width))
        cleaned: Tensor = self.denoiser(tokens)
        return cleaned.reshape(raw.shape)

    @classmethod
    def fresh(cls, width: int, grid: tuple[int, int] | None, blocks: int = 1, seed: int = 0) -> "Denoiser":
        """Return one to train: ``seed`` decides its numbers, and the caller's random state stays as it was."""
        with seeded(seed):
            return cls(width, grid, blocks)

    @classmethod
    def from_checkpoint(cls, path: Path | str, backbone: str | None = None, width: int | None = None) -> "Denoiser":
        """Load ours (safetensors) or the original's (``.pth``), from a file, or ``hub:voc_denoised`` for a ``backbone``.

        ``backbone`` is an alias or timm name, ``width`` the channels it gives. Raises DenoiserError where the file holds no
        denoiser, or one of another backbone or width, WeightsError where it cannot be read or holds code, HubError where it
        cannot be fetched.
        """
        state, facts, place = read_checkpoint(path, backbone)
        layout = Layout.of(state, facts, place.name)
        if width is not None and layout.width != width:
            raise DenoiserError(
                f"{place.name} denoises features of {layout.width} channels, the backbone gives {width}: "
                "is it of another backbone?"
            )
        model = cls.fresh(layout.width, layout.grid, layout.blocks)
        model.artifact = state.pop("artifact", None)
        layout.check(state, model.state_dict(), place.name)
        model.load_state_dict(state)
        model.source, model.facts = str(path), facts
        return model.eval()

    def digest(self) -> str:
        """Return the SHA-256, in hex, of what decides the numbers: layout, and every parameter's bytes as float32."""
        digest = hashlib.sha256(json.dumps([self.width, self.grid, self.blocks]).encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(f"{name} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().astype("<f4").tobytes())
        return digest.hexdigest()

    def to_bytes(self, facts: Mapping[str, Any], artifact: Float[Tensor, "h w c"] | None = None) -> bytes:
        """Return the file of this denoiser: safetensors, with ``facts`` (JSON-ready) beside the layout in its header.

        ``artifact`` is the mean over images of raw − clean at each position, which stage 2 takes for the artifact.
        """
        from safetensors.torch import save

        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        if artifact is not None:
            tensors["artifact"] = artifact.detach().float().cpu().contiguous()
        header = {"grid": list(self.grid) if self.grid else None, "blocks": self.blocks, **facts}
        data: bytes = save(tensors, metadata={"featstore": json.dumps(header, sort_keys=True)})
        return data


def resampled(
    position: Float[Tensor, "1 count c"], own: tuple[int, int], grid: tuple[int, int]
) -> Float[Tensor, "1 places c"]:
    """Return an embedding of grid ``own`` on another, bicubic and antialiased.

    Not timm's function: that of 1.0.15 leaves alone what has as many positions in another shape (4×9 for a square of 6×6).
    """
    if grid == own:
        return position
    planes = position.float().reshape(1, *own, -1).permute(0, 3, 1, 2)
    planes = F.interpolate(planes, grid, mode="bicubic", antialias=True, align_corners=False)
    return planes.permute(0, 2, 3, 1).reshape(1, grid[0] * grid[1], -1).to(position.dtype)
