"""State-dict keys: wrappers and prefixes taken off, Hugging Face's names turned into timm's."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["from_hugging_face", "is_hugging_face", "strip_prefixes"]

PREFIXES = (
    *("module.", "backbone.", "model.", "teacher.", "encoder.vit.", "vision_model."),
    *("dinov2.", "dinov2_with_registers.", "dinov3_vit.", "vit.", "ijepa.", "beit."),
)
ENCODER = r"^encoder\.layer\.(\d+)\."  # of DINOv2, ViT (DINO, MAE, I-JEPA) and BEiT
LAYERS = r"^encoder\.layers\.(\d+)\."  # of CLIP and SigLIP
LAYER = r"^layer\.(\d+)\."  # of DINOv3
RENAMED = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^embeddings\.(cls_token|class_embedding)$", "cls_token"),
        (r"^embeddings\.register_tokens$", "reg_token"),
        (r"^embeddings\.position_embedding(s|\.weight)$", "pos_embed"),
        (r"^embeddings\.patch_embedding(s\.projection|s)?\.(weight|bias)$", r"patch_embed.proj.\2"),
        (ENCODER + r"attention\.output\.dense\.", r"blocks.\1.attn.proj."),
        (ENCODER + r"attention\.attention\.relative_position_bias\.", r"blocks.\1.attn."),
        (ENCODER + r"layer_scale([12])\.lambda1$", r"blocks.\1.ls\2.gamma"),
        (ENCODER + r"lambda_([12])$", r"blocks.\1.gamma_\2"),
        (ENCODER + r"layernorm_before\.", r"blocks.\1.norm1."),
        (ENCODER + r"layernorm_after\.", r"blocks.\1.norm2."),
        (ENCODER + r"(intermediate\.dense|mlp\.weights_in)\.", r"blocks.\1.mlp.fc1."),
        (ENCODER + r"(output\.dense|mlp\.weights_out)\.", r"blocks.\1.mlp.fc2."),
        (ENCODER, r"blocks.\1."),
        (LAYERS + r"layer_norm([12])\.", r"blocks.\1.norm\2."),
        (LAYERS + r"self_attn\.out_proj\.", r"blocks.\1.attn.proj."),
        (LAYERS, r"blocks.\1."),
        (LAYER + r"attention\.o_proj\.", r"blocks.\1.attn.proj."),
        (LAYER + r"layer_scale([12])\.lambda1$", r"blocks.\1.gamma_\2"),
        (LAYER + r"mlp\.gate_proj\.", r"blocks.\1.mlp.fc1_g."),
        (LAYER + r"mlp\.down_proj\.", r"blocks.\1.mlp.fc2."),
        (LAYER, r"blocks.\1."),
        (r"^(layernorm|post_layernorm)\.", "norm."),
        (r"^pre_layrnorm\.", "norm_pre."),  # as it is spelt there
        (r"^pooler\.layernorm\.", "fc_norm."),
        (r"^head\.probe$", "attn_pool.latent"),
        (r"^head\.attention\.out_proj\.", "attn_pool.proj."),
        (r"^head\.layernorm\.", "attn_pool.norm."),
        (r"^head\.mlp\.", "attn_pool.mlp."),
    )
)
PROJECTION = re.compile(
    r"^(?:encoder\.)?layers?\.(\d+)\.(?:attention\.|self_attn\.)+(query|key|value|q_proj|k_proj|v_proj)\.(weight|bias)$"
)
UP = re.compile(r"^blocks\.(\d+)\.mlp\.up_proj\.(weight|bias)$")
UNUSED = re.compile(r"mask_token|relative_position_index|^pooler\.dense|position_ids|^rope_embeddings\.|inv_freq")


def strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off prefixes that hold the whole backbone, as often as there are any; other parts (heads) are dropped."""
    stripped = dict(state)
    if any(key.startswith("vision_model.") for key in stripped):  # the smaller part of one with text
        stripped = {key: value for key, value in stripped.items() if key.startswith("vision_model.")}
    while True:
        prefix = next((p for p in PREFIXES if is_most(p, stripped)), None)
        if prefix is None:
            return stripped
        if prefix == "model." and "embeddings.cls_token" in stripped:  # DINOv3's layers alone lie under it
            return {key.removeprefix(prefix): value for key, value in stripped.items()}
        stripped = {key[len(prefix) :]: value for key, value in stripped.items() if key.startswith(prefix)}


def is_most(prefix: str, state: Mapping[str, Tensor]) -> bool:
    """Whether more than half of the tensors lie under ``prefix``."""
    return sum(key.startswith(prefix) for key in state) > len(state) / 2


def is_hugging_face(state: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of transformers' vision models."""
    return any(PROJECTION.match(key) for key in state)


def from_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of transformers' DINOv2 (with registers), DINOv3, ViT, MAE, I-JEPA, BEiT, CLIP and SigLIP to timm's.

    Query, key and value are joined along their outputs (C to 3C); where the key has no bias (BEiT, DINOv3) the others stay
    apart, as in timm. The class token of DINOv2 with registers takes in its position, which timm's has not.
    """
    renamed: dict[str, Tensor] = {}
    parts: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key, value in state.items():
        match = PROJECTION.match(key)
        if match:
            block, which, kind = match.groups()
            parts.setdefault((block, kind), {})[which[0]] = value
        elif not UNUSED.search(key):
            renamed[rename(key)] = value
    for (block, kind), three in parts.items():
        if len(three) == 3:
            renamed[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat([three[w] for w in "qkv"])
        else:
            renamed |= {f"blocks.{block}.attn.{w}_{kind}": value for w, value in three.items()}
    return settled(renamed)


def settled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give renamed tensors the shapes and names that hang on others: positions, gated MLPs, the pooling head."""
    for name in ("cls_token", "pos_embed"):
        if name in state:
            value = state[name]
            state[name] = value.reshape(*(1,) * (3 - value.ndim), *value.shape)
    if "reg_token" in state and "pos_embed" in state:
        state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    for kind in ("weight", "bias"):
        joined = state.pop(f"head.attention.in_proj_{kind}", None)
        if joined is not None:
            width = len(joined) // 3
            state |= {f"attn_pool.q.{kind}": joined[:width], f"attn_pool.kv.{kind}": joined[width:]}
    gated = any(".mlp.fc1_g." in key for key in state)
    return {UP.sub(rf"blocks.\1.mlp.{'fc1_x' if gated else 'fc1'}.\2", key): value for key, value in state.items()}


def rename(key: str) -> str:
    """Return timm's name of one tensor."""
    for pattern, name in RENAMED:
        new, count = pattern.subn(name, key)
        if count:
            return new
    return key
