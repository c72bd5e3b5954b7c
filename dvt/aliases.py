"""Short names of the backbones that the method was shown on and of those after them, and what timm calls them."""

from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points

import timm

from .errors import BackboneError

__all__ = ["ALIASES", "backbone_id", "brought", "resolve"]

ALIASES = {
    # DINOv2, arXiv 2304.07193; with four registers, arXiv 2309.16588
    "dinov2_s": "vit_small_patch14_dinov2.lvd142m",
    "dinov2_b": "vit_base_patch14_dinov2.lvd142m",
    "dinov2_l": "vit_large_patch14_dinov2.lvd142m",
    "dinov2_g": "vit_giant_patch14_dinov2.lvd142m",
    "dinov2_s_reg": "vit_small_patch14_reg4_dinov2.lvd142m",
    "dinov2_b_reg": "vit_base_patch14_reg4_dinov2.lvd142m",
    "dinov2_l_reg": "vit_large_patch14_reg4_dinov2.lvd142m",
    "dinov2_g_reg": "vit_giant_patch14_reg4_dinov2.lvd142m",
    # DINOv3, arXiv 2508.10104; qkvb keeps the biases of query and value, which the others hold to be zero
    "dinov3_s": "vit_small_patch16_dinov3.lvd1689m",
    "dinov3_s_plus": "vit_small_plus_patch16_dinov3.lvd1689m",
    "dinov3_b": "vit_base_patch16_dinov3.lvd1689m",
    "dinov3_l": "vit_large_patch16_dinov3.lvd1689m",
    "dinov3_h_plus": "vit_huge_plus_patch16_dinov3.lvd1689m",
    "dinov3_7b": "vit_7b_patch16_dinov3.lvd1689m",
    "dinov3_l_sat": "vit_large_patch16_dinov3.sat493m",
    "dinov3_7b_sat": "vit_7b_patch16_dinov3.sat493m",
    "dinov3_s_qkvb": "vit_small_patch16_dinov3_qkvb.lvd1689m",
    "dinov3_s_plus_qkvb": "vit_small_plus_patch16_dinov3_qkvb.lvd1689m",
    "dinov3_b_qkvb": "vit_base_patch16_dinov3_qkvb.lvd1689m",
    "dinov3_l_qkvb": "vit_large_patch16_dinov3_qkvb.lvd1689m",
    "dinov3_h_plus_qkvb": "vit_huge_plus_patch16_dinov3_qkvb.lvd1689m",
    "dinov3_l_sat_qkvb": "vit_large_patch16_dinov3_qkvb.sat493m",
    # DINO, arXiv 2104.14294
    "dino_s": "vit_small_patch16_224.dino",
    "dino_b": "vit_base_patch16_224.dino",
    "dino_s8": "vit_small_patch8_224.dino",
    "dino_b8": "vit_base_patch8_224.dino",
    # MAE, arXiv 2111.06377
    "mae_b": "vit_base_patch16_224.mae",
    "mae_l": "vit_large_patch16_224.mae",
    "mae_h": "vit_huge_patch14_224.mae",
    # CLIP, arXiv 2103.00020. OpenAI trained with QuickGELU, which clip_b and clip_l replace by GELU; clip_b_384 is DVT's
    "clip_b": "vit_base_patch16_clip_224.openai",
    "clip_l": "vit_large_patch14_clip_224.openai",
    "clip_b_quickgelu": "vit_base_patch16_clip_quickgelu_224.openai",
    "clip_l_quickgelu": "vit_large_patch14_clip_quickgelu_224.openai",
    "clip_b_laion": "vit_base_patch16_clip_224.laion2b",
    "clip_l_laion": "vit_large_patch14_clip_224.laion2b",
    "clip_h_laion": "vit_huge_patch14_clip_224.laion2b",
    "clip_b_384": "vit_base_patch16_clip_384.laion2b_ft_in12k_in1k",
    # DeiT III, arXiv 2204.07118
    "deit3_s": "deit3_small_patch16_224.fb_in1k",
    "deit3_m": "deit3_medium_patch16_224.fb_in1k",
    "deit3_b": "deit3_base_patch16_224.fb_in1k",
    "deit3_l": "deit3_large_patch16_224.fb_in1k",
    "deit3_h": "deit3_huge_patch14_224.fb_in1k",
    # EVA-02, arXiv 2303.11331
    "eva02_t": "eva02_tiny_patch14_224.mim_in22k",
    "eva02_s": "eva02_small_patch14_224.mim_in22k",
    "eva02_b": "eva02_base_patch16_clip_224.merged2b",
    "eva02_l": "eva02_large_patch14_clip_224.merged2b",
    "eva02_b_mim": "eva02_base_patch14_224.mim_in22k",
    "eva02_l_mim": "eva02_large_patch14_224.mim_m38m",
    # AugReg, arXiv 2106.10270; augreg_b_384 is DVT's
    "augreg_s": "vit_small_patch16_224.augreg_in21k",
    "augreg_b": "vit_base_patch16_224.augreg_in21k",
    "augreg_l": "vit_large_patch16_224.augreg_in21k",
    "augreg_b_384": "vit_base_patch16_384.augreg_in21k_ft_in1k",
    # SigLIP, arXiv 2303.15343, and SigLIP 2, arXiv 2502.14786
    "siglip_b": "vit_base_patch16_siglip_224.webli",
    "siglip_l": "vit_large_patch16_siglip_256.webli",
    "siglip_so400m": "vit_so400m_patch14_siglip_384.webli",
    "siglip2_b": "vit_base_patch16_siglip_512.v2_webli",
    "siglip2_l": "vit_large_patch16_siglip_512.v2_webli",
    "siglip2_so400m": "vit_so400m_patch14_siglip_378.v2_webli",
    "siglip2_so400m_16": "vit_so400m_patch16_siglip_512.v2_webli",
    # I-JEPA, arXiv 2301.08243
    "ijepa_h": "vit_huge_patch14_gap_224.in1k_ijepa",
    "ijepa_h_22k": "vit_huge_patch14_gap_224.in22k_ijepa",
    "ijepa_h16_448": "vit_huge_patch16_gap_448.in1k_ijepa",
    "ijepa_g": "vit_giant_patch16_gap_224.in22k_ijepa",
    # SAM's image encoder, arXiv 2304.02643
    "sam_b": "samvit_base_patch16.sa1b",
    "sam_l": "samvit_large_patch16.sa1b",
    "sam_h": "samvit_huge_patch16.sa1b",
    # BEiT, arXiv 2106.08254, and BEiT v2, arXiv 2208.06366
    "beit_b": "beit_base_patch16_224.in22k_ft_in22k",
    "beit_l": "beit_large_patch16_224.in22k_ft_in22k",
    "beitv2_b": "beitv2_base_patch16_224.in1k_ft_in22k",
    "beitv2_l": "beitv2_large_patch16_224.in1k_ft_in22k",
    # Perception Encoder, the one trained for dense features, arXiv 2504.13181
    "pe_spatial_s": "vit_pe_spatial_small_patch16_512.fb",
    "pe_spatial_b": "vit_pe_spatial_base_patch16_512.fb",
    "pe_spatial_l": "vit_pe_spatial_large_patch14_448.fb",
}
"""Alias to timm name."""


GROUP = "featstore.backbones"
"""Entry points by which other packages bring backbones: alias = module:function, a function that timm has registered."""


@cache
def brought() -> dict[str, EntryPoint]:
    """Return the entry points of other packages by alias."""
    return {point.name: point for point in entry_points(group=GROUP)}


def resolve(name: str) -> str:
    """Return the timm name of an alias or a timm name; raises BackboneError with the nearest names where there is none."""
    timm_name = ALIASES.get(name, name)
    if name in brought() and name not in ALIASES:
        timm_name = registered(brought()[name])
    if timm.is_model(timm_name.split(".")[0]):
        return timm_name
    near = get_close_matches(name, [*ALIASES, *brought(), *timm.list_models()], n=4, cutoff=0.5)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise BackboneError(f"there is no backbone {name!r}{hint} Give an alias (dinov2_b, mae_b, clip_b …) or a timm name")


def registered(point: EntryPoint) -> str:
    """Import what an entry point names, which registers it with timm; return its timm name."""
    try:
        point.load()
    except Exception as error:
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise BackboneError(f"the backbone {point.name!r} ({point.value}) cannot be imported: {told}") from error
    if not timm.is_model(point.attr):
        raise BackboneError(f"{point.value} is no model of timm's: decorate it with timm.models.register_model")
    return point.attr


def backbone_id(timm_name: str) -> str:
    """Return the name of a backbone's folder: its alias where it has one, else its timm name."""
    aliases = ALIASES | {alias: point.attr for alias, point in brought().items() if alias not in ALIASES}
    return next((alias for alias, name in aliases.items() if name == timm_name), timm_name)
