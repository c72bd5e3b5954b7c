"""What each backbone is, told by its architecture alone: no weights are made, fetched or read."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import timm
from torch import nn

from .aliases import ALIASES, backbone_id, brought, resolve
from .architecture import default_size, outline, patch_size, takes_any_size
from .errors import BackboneError
from .hub import is_cached
from .patches import grid_of
from .weights import DEMO_BACKBONE, demo_weights_path

__all__ = ["BackboneFacts", "describe_backbone", "find_backbones"]

DEMO, CACHED = "demo", "hub cache"


@dataclass(frozen=True)
class BackboneFacts:
    """A backbone's facts: ``patch`` [pixels], ``width`` C of the features, ``depth`` [blocks], sizes (height, width) [pixels].

    ``native`` is the size of the pretraining, ``default`` what inputs are resized to here, ``grid`` [patches] what that gives,
    ``any_size`` whether other sizes can be asked for; ``prefix_tokens`` counts class and register tokens; ``mean`` and ``std``
    [0, 1] and ``interpolation`` are the model's own. ``licence`` is timm's word for that of the weights, None where timm has
    none. ``weights`` is where they lie on this machine, None where they do not.
    """

    alias: str | None
    timm_name: str
    patch: int
    width: int
    depth: int
    native: tuple[int, int]
    default: tuple[int, int]
    grid: tuple[int, int]
    any_size: bool
    prefix_tokens: int
    parameters: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    licence: str | None
    weights: str | None


def find_backbones(pattern: str | None = None, every: bool = False) -> list[BackboneFacts]:
    """Return the facts of all backbones with an alias, or with ``every`` of all of timm's that have weights and a patch grid.

    ``pattern`` is part of an alias or timm name, or a shell pattern for a whole one. Raises BackboneError where none fits.
    """
    names: Iterable[str] = [*ALIASES.values(), *(resolve(alias) for alias in brought())]
    if every:
        names = [
            *names,
            *(name for name in timm.list_pretrained() if name not in ALIASES.values() and may_be_vit(name)),
        ]
    chosen = [name for name in names if pattern is None or fits(pattern, name) or fits(pattern, backbone_id(name))]
    found = []
    for name in chosen:
        try:
            found.append(describe_backbone(name))
        except BackboneError:  # convolutions, hierarchies: no grid of patch tokens
            if not every:
                raise
    if not found:
        more = "" if every else "; --all looks through all of timm"
        raise BackboneError(f"no backbone is called like {pattern!r}{more}")
    return found


def may_be_vit(timm_name: str) -> bool:
    """Whether a model's first layer is one of patches, by timm's record of it: the others need not be made to be refused."""
    first = timm.get_pretrained_cfg(timm_name).first_conv
    return not first or "patch_embed" in str(first)


def fits(pattern: str, name: str) -> bool:
    """Whether a name holds the pattern, or is of it where that has wildcards."""
    return fnmatchcase(name, pattern) if any(sign in pattern for sign in "*?[") else pattern in name


def describe_backbone(timm_name: str) -> BackboneFacts:
    """Return the facts of one timm model; raises BackboneError where it has no grid of patch tokens."""
    model = outline(timm_name)
    patch = patch_size(model, timm_name)
    default = default_size(model, patch)
    config: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    alias = backbone_id(timm_name)
    return BackboneFacts(
        alias=None if alias == timm_name else alias,
        timm_name=timm_name,
        patch=patch,
        width=feature_width(model),
        depth=len(model.blocks),  # type: ignore[arg-type]
        native=(int(config["input_size"][1]), int(config["input_size"][2])),
        default=default,
        grid=grid_of(default, patch, patch),
        any_size=takes_any_size(model),
        prefix_tokens=int(getattr(model, "num_prefix_tokens", 0)),
        parameters=sum(values.numel() for values in model.parameters()),
        mean=tuple(map(float, config["mean"])),
        std=tuple(map(float, config["std"])),
        interpolation=str(config["interpolation"]),
        licence=config.get("license"),
        weights=weights_at_hand(timm_name),
    )


def feature_width(model: nn.Module) -> int:
    """Return the channels of the features after the last norm: of SAM those of its neck."""
    neck: Any = getattr(model, "neck", None)
    return int(neck[0].out_channels if isinstance(neck, nn.Sequential) else model.embed_dim)  # type: ignore[arg-type]


def weights_at_hand(timm_name: str) -> str | None:
    """Return where a model's weights lie on this machine: the hub's cache, the demo extra, or nowhere. Asks no network."""
    if is_cached(timm_name):
        return CACHED
    return DEMO if timm_name == DEMO_BACKBONE and demo_weights_path() else None
