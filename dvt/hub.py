"""Pretrained weights from the hub, without a minute of retries where there is no network."""

import json
import logging
import os
import urllib.error
import urllib.request
from functools import cache
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import timm
import torch
from torch import nn

from .errors import HubError

__all__ = ["create_pretrained", "fetch", "fetch_published", "is_at_hand"]

TIMEOUT = 4.0
PUBLISHED = "jjiaweiyang/DVT"
FOLDERS = ("voc_denoised", "imgnet_denoised", "voc_distilled", "imgnet_distilled")
FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
CONFIG = "config.json"


def is_at_hand(timm_name: str) -> bool:
    """Whether a model's weights are in the local cache, or the hub answers within a few seconds."""
    return is_cached(timm_name) or is_reachable(plain_address(timm_name))


def is_cached(timm_name: str) -> bool:
    """Whether the weights of a timm model are cached: by the hub, or by torch where they lie at an address of their own."""
    from huggingface_hub import try_to_load_from_cache

    address = plain_address(timm_name)
    if address is not None:
        return (Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(urlsplit(address).path).name).is_file()
    config = timm.get_pretrained_cfg(timm_name)
    repository = config.hf_hub_id if config else None
    if not repository:
        return False
    own = [config.hf_hub_filename] if config.hf_hub_filename else []
    return any(isinstance(try_to_load_from_cache(repository, name), str) for name in (*own, *FILES))


def plain_address(timm_name: str) -> str | None:
    """Return the address of weights that are not on the hub (I-JEPA's), None where they are."""
    config = timm.get_pretrained_cfg(timm_name)
    return str(config.url) if config and config.url and not config.hf_hub_id else None


def is_reachable(address: str | None = None) -> bool:
    """Whether the hub answers, or ``address``; any HTTP status counts, HF_HUB_OFFLINE says no, HF_ENDPOINT where the hub is."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    endpoint = address or os.environ.get("HF_ENDPOINT", "https://huggingface.co")
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


def fetch(name: str, timm_name: str) -> Path:
    """Return the local copy of ``owner/repository[@revision]``, or else of what DVT's authors published; raises HubError."""
    return fetch_repository(name) if "/" in name else fetch_published(name, timm_name)


def fetch_repository(name: str) -> Path:
    """Return the local folder of a repository's config.json and weights, in one file or shards: what is cached, else fetched.

    Raises HubError where the repository holds no weights, or they are neither cached nor can be fetched.
    """
    from huggingface_hub.errors import GatedRepoError

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    obtain = Repository(name)
    try:
        obtain(CONFIG)
        weights = next(filter(None, map(obtain, (*FILES, *INDICES))), None)
        named = (
            json.loads(weights.read_text(encoding="utf-8"))["weight_map"] if weights and weights.name in INDICES else {}
        )
        complete = weights is not None and all(obtain(shard) for shard in set(named.values()))
    except GatedRepoError as error:
        raise HubError(
            f"hub:{name} is gated: accept its licence on its page, log in (hf auth login), try again"
        ) from error
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise HubError(f"hub:{name} cannot be fetched: {' '.join(str(error).split())[:200]}") from error
    if weights is None or not complete:
        if obtain.is_online():
            raise HubError(f"hub:{name} holds no weights that are read here: none of {', '.join((*FILES, *INDICES))}")
        raise HubError(
            f"hub:{name} is not cached and the hub cannot be reached: fetch it, and give its folder as --weights"
        )
    return weights.parent


class Repository:
    """The files of ``owner/repository[@revision]``: called with a name it gives the local copy, None where there is none."""

    def __init__(self, name: str) -> None:
        self.repository, _, revision = name.partition("@")
        self.revision = revision or None
        self.is_online = cache(is_reachable)

    def __call__(self, file: str) -> Path | None:
        """Return the file from the cache, else fetched; raises what huggingface_hub raises."""
        from huggingface_hub import hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import EntryNotFoundError

        cached = try_to_load_from_cache(self.repository, file, revision=self.revision)
        if cached is not None:
            return Path(cached) if isinstance(cached, str) else None  # a sign that the repository has no such file
        if not self.is_online():
            return None
        try:
            return Path(hf_hub_download(self.repository, file, revision=self.revision))
        except EntryNotFoundError:
            return None


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
