"""Denoisers planted in the published layout, and what such a one computes, written out slowly and without it."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dvt import Denoiser

State = dict[str, Tensor]
HEAD = 64


def published(width: int, grid: tuple[int, int] | None, blocks: int = 1, seed: int = 0) -> State:
    """Random tensors, none of them near its default, by the names of the published checkpoints."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
    shapes |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
    state = {}
    if grid is not None:
        state["pos_embed"] = 0.5 * torch.randn(1, grid[0] * grid[1], width, generator=generator)
    for number in range(blocks):
        place = "denoiser." if blocks == 1 else f"denoiser.{number}."
        for norm in ("norm1", "norm2"):
            state[f"{place}{norm}.weight"] = 1 + 0.2 * torch.randn(width, generator=generator)
            state[f"{place}{norm}.bias"] = 0.2 * torch.randn(width, generator=generator)
        for name, (given, taken) in shapes.items():
            state[f"{place}{name}.weight"] = 1.5 / math.sqrt(taken) * torch.randn(given, taken, generator=generator)
            state[f"{place}{name}.bias"] = 0.2 * torch.randn(given, generator=generator)
    return state


def planted(width: int, grid: tuple[int, int] | None, blocks: int = 1, seed: int = 0) -> Denoiser:
    """A denoiser of these numbers."""
    model = Denoiser.fresh(width, grid, blocks)
    model.load_state_dict(published(width, grid, blocks, seed))
    return model.eval()


def reference(state: State, raw: Tensor, grid: tuple[int, int] | None) -> Tensor:
    """What the denoiser of a state gives for raw features (N, H, W, C), in float64: image by image, head by head."""
    state = {name: value.double() for name, value in state.items()}
    count, height, width, channels = raw.shape
    tokens = raw.double().reshape(count, height * width, channels)
    if grid is not None:
        position = state["pos_embed"].reshape(1, *grid, channels).permute(0, 3, 1, 2)
        position = F.interpolate(position, (height, width), mode="bicubic", antialias=True, align_corners=False)
        tokens = tokens + position.permute(0, 2, 3, 1).reshape(1, height * width, channels)
    places = ["denoiser.", *(f"denoiser.{number}." for number in range(len(state)))]
    for place in (place for place in places if f"{place}norm1.weight" in state):
        own = {name.removeprefix(place): value for name, value in state.items() if name.startswith(place)}
        tokens = torch.stack([block(own, image) for image in tokens])
    return tokens.reshape(raw.shape)


def block(own: State, tokens: Tensor) -> Tensor:
    """One pre-norm Transformer block on the tokens (T, C) of one image."""
    channels = tokens.shape[1]
    query, key, value = linear(own, "attn.qkv", normed(own, "norm1", tokens)).split(channels, dim=1)
    heads = []
    for start in range(0, channels, HEAD):
        part = slice(start, start + HEAD)
        scores = query[:, part] @ key[:, part].T / math.sqrt(HEAD)
        weights = (scores - scores.amax(dim=1, keepdim=True)).exp()
        heads.append(weights / weights.sum(dim=1, keepdim=True) @ value[:, part])
    tokens = tokens + linear(own, "attn.proj", torch.cat(heads, dim=1))
    hidden = linear(own, "mlp.fc1", normed(own, "norm2", tokens))
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
    return tokens + linear(own, "mlp.fc2", hidden)


def linear(own: State, name: str, tokens: Tensor) -> Tensor:
    return tokens @ own[f"{name}.weight"].T + own[f"{name}.bias"]


def normed(own: State, name: str, tokens: Tensor) -> Tensor:
    centred = tokens - tokens.mean(dim=1, keepdim=True)
    scaled = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()
    return scaled * own[f"{name}.weight"] + own[f"{name}.bias"]
