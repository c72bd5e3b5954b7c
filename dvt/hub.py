"""Pretrained weights from the hub, without a minute of retries where there is no network."""

import logging
import os
import urllib.error
import urllib.request
from pathlib import Path

import timm
from torch import nn

from .errors import HubError

__all__ = ["create_pretrained", "fetch_published", "is_at_hand"]

TIMEOUT = 4.0
PUBLISHED = "jjiaweiyang/DVT"
FOLDERS = ("voc_denoised", "imgnet_denoised", "voc_distilled", "imgnet_distilled")
FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def is_at_hand(timm_name: str) -> bool:
    """Whether a model's weights are in the local cache, or the hub answers within a few seconds."""
    return is_cached(timm_name) or is_reachable()


def is_cached(timm_name: str) -> bool:
    """Whether the hub's cache holds the weights of a timm model."""
    from huggingface_hub import try_to_load_from_cache

    config = timm.get_pretrained_cfg(timm_name)
    repository = config.hf_hub_id if config else None
    if not repository:
        return False
    return any(isinstance(try_to_load_from_cache(repository, name), str) for name in FILES)


def is_reachable() -> bool:
    """Whether the hub answers; any HTTP status counts, HF_HUB_OFFLINE says no, HF_ENDPOINT says where."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if not endpoint.startswith(("https://", "http://")):
        return False
    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=TIMEOUT):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


def create_pretrained(timm_name: str) -> nn.Module:
    """Create a timm model without head with its pretrained weights, at its own input size.

    Raises HubError where they are neither cached nor can be fetched.
    """
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if not is_at_hand(timm_name):
        raise HubError(f"the weights of {timm_name} are not cached and the hub cannot be reached")
    try:
        model: nn.Module = timm.create_model(timm_name, pretrained=True, num_classes=0)
    except (OSError, RuntimeError, ValueError) as error:
        raise HubError(f"the weights of {timm_name} cannot be fetched: {' '.join(str(error).split())[:200]}") from error
    return model


def fetch_published(folder: str, timm_name: str) -> Path:
    """Return the local copy of what DVT's authors published for a timm model in one of ``FOLDERS``, fetched where needed.

    Raises HubError where there is no such folder or file, or it is neither cached nor can be fetched.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if folder not in FOLDERS:
        raise HubError(f"hub:{folder} is not published; there are hub:{', hub:'.join(FOLDERS)}")
    name = f"{folder}/{timm_name}.pth"
    cached = try_to_load_from_cache(PUBLISHED, name)
    if isinstance(cached, str):
        return Path(cached)
    if not is_reachable():
        raise HubError(f"{PUBLISHED}/{name} is not cached and the hub cannot be reached: fetch it, and give the file")
    try:
        return Path(hf_hub_download(PUBLISHED, name))
    except (OSError, RuntimeError, ValueError) as error:
        raise HubError(f"{PUBLISHED}/{name} cannot be fetched: {' '.join(str(error).split())[:200]}") from error
