"""A denoiser's file: ours in safetensors, the original's in ``.pth``; told apart, checked, never run."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from torch import Tensor

from .aliases import resolve
from .errors import DenoiserError, WeightsError
from .hub import fetch_published
from .weights import few, load_torch, read_safetensors

__all__ = ["Layout", "read_checkpoint", "read_state"]

HUB = "hub:"


@dataclass(frozen=True)
class Layout:
    """What a state dict is of: channels C, the embedding's grid (H, W) or None, and how many blocks."""

    width: int
    grid: tuple[int, int] | None
    blocks: int

    @classmethod
    def of(cls, state: Mapping[str, Tensor], facts: Mapping[str, Any], name: str) -> "Layout":
        """Read it off the tensors; raises DenoiserError where they are no denoiser's, or the grid is not told."""
        numbers = [int(found[1]) for key in state if (found := re.match(r"denoiser\.(\d+)\.norm1\.weight$", key))]
        first = state.get("denoiser.norm1.weight", state.get("denoiser.0.norm1.weight"))
        if first is None:
            raise DenoiserError(f"{name} holds no denoiser: its tensors are {few(sorted(state))}")
        position = state.get("pos_embed")
        grid = None
        if position is not None:
            count = position.shape[-2] if position.ndim > 1 else 1
            told = facts.get("grid") or [math.isqrt(count)] * 2
            grid = int(told[0]), int(told[1])
            if grid[0] * grid[1] != count:
                raise DenoiserError(
                    f"{name} has {count} positions, which are no square, and does not say of which grid"
                )
        return cls(first.numel(), grid, max(numbers, default=0) + 1)

    def check(self, state: Mapping[str, Tensor], own: Mapping[str, Tensor], name: str) -> None:
        """Raise DenoiserError, naming some of them, where tensors are missing, left over or of another shape."""
        wrong = [f"{key} is missing" for key in own if key not in state]
        wrong += [f"{key} is not a denoiser's" for key in state if key not in own]
        wrong += [
            f"{key} is {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
            for key in own
            if key in state and state[key].shape != own[key].shape
        ]
        if wrong:
            raise DenoiserError(f"{name} is no whole denoiser of {self.width} channels: {few(wrong)}")


def read_checkpoint(path: Path | str, backbone: str | None) -> tuple[dict[str, Tensor], dict[str, Any], Path]:
    """Return a checkpoint's tensors as float32, what its header tells, and the file.

    ``hub:voc_denoised`` is fetched for ``backbone`` from where the authors published it. Raises DenoiserError where the file
    is named after another timm model than that of ``backbone``, WeightsError, HubError.
    """
    timm_name = resolve(backbone) if backbone else None
    if str(path).startswith(HUB):
        if timm_name is None:
            raise DenoiserError(f"{path}: say of which backbone")
        place = fetch_published(str(path).removeprefix(HUB), timm_name)
    else:
        place = Path(path)
    if not place.is_file():
        raise WeightsError(f"there is no denoiser file {place}")
    if timm_name and timm.is_model(place.stem) and not same_model(place.stem, timm_name):
        raise DenoiserError(f"{place.name} is a denoiser of {place.stem}, by its name, not of {timm_name}")
    facts: dict[str, Any] = {}
    if place.suffix == ".safetensors":
        state, facts = read_safetensors(place), header(place)
    elif place.suffix in (".pth", ".pt", ".bin", ".ckpt"):
        state = published(load_torch(place), place.name)
    else:
        raise WeightsError(f"{place.name}: a denoiser comes as .safetensors or .pth; this is neither")
    return {name: value.float() for name, value in state.items()}, facts, place


def same_model(one: str, other: str) -> bool:
    """Whether two timm names can mean the same model: a tag (after the dot) left out fits any."""
    return all(a == b for a, b in zip(one.split("."), other.split("."), strict=False))


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of one of our files as they are, and what its header tells. Raises WeightsError."""
    return read_safetensors(path), header(path)


def header(path: Path) -> dict[str, Any]:
    """Return what one of our files tells of itself; nothing for another's."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        told: dict[str, Any] = json.loads((file.metadata() or {}).get("featstore", "{}"))
    return told


def published(loaded: Any, name: str) -> dict[str, Tensor]:
    """Return the denoiser in a checkpoint of the original code; raises DenoiserError where there is none."""
    if not isinstance(loaded, Mapping):
        raise DenoiserError(f"{name} holds no denoiser, but a {type(loaded).__name__}")
    inner = loaded.get("denoiser", loaded)
    if not isinstance(inner, Mapping):
        raise DenoiserError(f"{name} holds no denoiser: its parts are {few(sorted(map(str, loaded)))}")
    if "denoiser" not in loaded and isinstance(loaded.get("model"), Mapping):
        raise DenoiserError(f"{name} is a distilled backbone, not a denoiser: give it as --weights")
    state = {str(key).removeprefix("module."): value for key, value in inner.items() if isinstance(value, Tensor)}
    if not state:
        raise DenoiserError(f"{name} holds no denoiser: its parts are {few(sorted(map(str, inner)))}")
    return {key: value for key, value in state.items() if not key.startswith("vit.")}
