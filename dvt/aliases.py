"""Short names of the backbones that the method was shown on, and what timm calls them."""

from difflib import get_close_matches

import timm

from .errors import BackboneError

__all__ = ["ALIASES", "backbone_id", "resolve"]

ALIASES = {
    "dinov2_s": "vit_small_patch14_dinov2.lvd142m",
    "dinov2_b": "vit_base_patch14_dinov2.lvd142m",
    "dinov2_l": "vit_large_patch14_dinov2.lvd142m",
    "dinov2_g": "vit_giant_patch14_dinov2.lvd142m",
    "dinov2_s_reg": "vit_small_patch14_reg4_dinov2.lvd142m",
    "dinov2_b_reg": "vit_base_patch14_reg4_dinov2.lvd142m",
    "dinov2_l_reg": "vit_large_patch14_reg4_dinov2.lvd142m",
    "dinov2_g_reg": "vit_giant_patch14_reg4_dinov2.lvd142m",
    "dino_s": "vit_small_patch16_224.dino",
    "dino_b": "vit_base_patch16_224.dino",
    "dino_s8": "vit_small_patch8_224.dino",
    "dino_b8": "vit_base_patch8_224.dino",
    "mae_b": "vit_base_patch16_224.mae",
    "mae_l": "vit_large_patch16_224.mae",
    "clip_b": "vit_base_patch16_clip_224.openai",
    "clip_l": "vit_large_patch14_clip_224.openai",
    "clip_b_laion": "vit_base_patch16_clip_224.laion2b",
    "deit3_s": "deit3_small_patch16_224.fb_in1k",
    "deit3_b": "deit3_base_patch16_224.fb_in1k",
    "deit3_l": "deit3_large_patch16_224.fb_in1k",
    "eva02_s": "eva02_small_patch14_224.mim_in22k",
    "eva02_b": "eva02_base_patch16_clip_224.merged2b",
    "eva02_l": "eva02_large_patch14_clip_224.merged2b",
    "augreg_s": "vit_small_patch16_224.augreg_in21k",
    "augreg_b": "vit_base_patch16_224.augreg_in21k",
    "augreg_l": "vit_large_patch16_224.augreg_in21k",
}
"""Alias to timm name."""


def resolve(name: str) -> str:
    """Return the timm name of an alias or a timm name; raises BackboneError with the nearest names where there is none."""
    timm_name = ALIASES.get(name, name)
    if timm.is_model(timm_name.split(".")[0]):
        return timm_name
    near = get_close_matches(name, [*ALIASES, *timm.list_models()], n=4, cutoff=0.5)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise BackboneError(f"there is no backbone {name!r}{hint} Give an alias (dinov2_b, mae_b, clip_b …) or a timm name")


def backbone_id(timm_name: str) -> str:
    """Return the name of a backbone's folder: its alias where it has one, else its timm name."""
    return next((alias for alias, name in ALIASES.items() if name == timm_name), timm_name)
