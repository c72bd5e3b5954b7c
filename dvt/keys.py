"""State-dict keys: wrappers and prefixes taken off, Hugging Face's DINOv2 names turned into timm's."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["from_hugging_face", "is_hugging_face", "strip_prefixes"]

PREFIXES = ("module.", "backbone.", "model.", "teacher.", "encoder.vit.", "dinov2.")
RENAMED = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
    (r"^encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1$", r"blocks.\1.ls\2.gamma"),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"^layernorm\.", "norm."),
)
PROJECTION = re.compile(r"^encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(weight|bias)$")


def strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off prefixes that hold the whole backbone, as often as there are any; other parts (heads) are dropped."""
    stripped = dict(state)
    while True:
        prefix = next((p for p in PREFIXES if is_most(p, stripped)), None)
        if prefix is None:
            return stripped
        stripped = {key[len(prefix) :]: value for key, value in stripped.items() if key.startswith(prefix)}


def is_most(prefix: str, state: Mapping[str, Tensor]) -> bool:
    """Whether more than half of the tensors lie under ``prefix``."""
    return sum(key.startswith(prefix) for key in state) > len(state) / 2


def is_hugging_face(state: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of transformers' Dinov2Model."""
    return any(PROJECTION.match(key) for key in state)


def from_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename transformers' DINOv2 tensors to timm's, query, key and value joined along their outputs (C to 3C)."""
    renamed: dict[str, Tensor] = {}
    parts: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key, value in state.items():
        match = PROJECTION.match(key)
        if match:
            block, which, kind = match.groups()
            parts.setdefault((block, kind), {})[which] = value
        elif key != "embeddings.mask_token":
            renamed[rename(key)] = value
    for (block, kind), three in parts.items():
        if len(three) == 3:
            renamed[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat([three[w] for w in ("query", "key", "value")])
    return renamed


def rename(key: str) -> str:
    """Return timm's name of one tensor."""
    for pattern, name in RENAMED:
        new, count = re.subn(pattern, name, key)
        if count:
            return new
    return key
