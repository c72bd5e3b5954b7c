"""Checkpoints: one file, or a folder of Hugging Face's (config.json beside model.safetensors, in shards or whole)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .aliases import ALIASES, backbone_id
from .architecture import outline
from .errors import WeightsError
from .weights import fit_to, load_strictly, read_weights

__all__ = ["Checkpoint", "read_checkpoint"]

WHOLE = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
FAMILIES = {"dinov2_with_registers": "dinov2", "dinov3_vit": "dinov3", "vit_mae": "mae", "clip": "clip"}
ACTIVATIONS = {"quick_gelu": "quickgelu", "gelu": "gelu", "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu"}
SIZED = ("pos_embed", "relative_position")  # what timm resamples to the model's own input size
SHOWN = 4


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint by timm's names, and the configuration beside them where there is one."""

    source: str
    state: dict[str, Tensor]
    config: dict[str, Any]

    def load(self, model: nn.Module, timm_name: str) -> None:
        """Load it into a model; raises WeightsError that names the backbones it is of, where it is of others."""
        problem = self.difference(model)
        if problem is None:
            try:
                load_strictly(model, fit_to(model, self.state), self.source)
            except WeightsError as error:
                problem = error
            else:
                return
        own = backbone_id(timm_name)
        names = [name for name in self.aliases() if name != own]
        told = f"{self.source} does not fit {own}"
        if not names:
            raise WeightsError(f"{told}: {problem}") if isinstance(problem, OtherModelError) else problem
        told += f" ({problem})" if isinstance(problem, OtherModelError) else ""
        shown = " or ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")
        raise WeightsError(f"{told}: it fits --backbone {shown}") from problem

    def difference(self, model: nn.Module) -> WeightsError | None:
        """Return in what the configuration is another than the model's where shapes do not tell; None where it is the same."""
        block: Any = model.blocks[0]  # type: ignore[index]
        heads, activation = self.config.get("num_attention_heads"), self.config.get("hidden_act")
        own_heads = getattr(getattr(block, "attn", None), "num_heads", heads)
        if heads is not None and heads != own_heads:
            return OtherModelError(f"it has {heads} heads, not {own_heads}")
        own = type(getattr(getattr(block, "mlp", None), "act", None)).__name__.lower()
        own = own.removesuffix("tanh")  # within 5e-4 of gelu, for which timm takes it in SigLIP
        expected = ACTIVATIONS.get(str(activation), own)
        if own in ACTIVATIONS.values() and expected != own:  # a gated MLP has its own, whatever hidden_act says
            return OtherModelError(f"it computes {expected}, not {own}")
        return None

    def aliases(self) -> list[str]:
        """Return the aliases of the backbones that the checkpoint fits, those of its own family where it has any."""
        kind = str(self.config.get("model_type", ""))
        family = FAMILIES.get(kind, kind.split("_")[0])
        patches = self.state.get("patch_embed.proj.weight")
        word = "" if patches is None else f"patch{patches.shape[-1]}"
        near = {alias: name for alias, name in ALIASES.items() if word in name}
        for names in ([a for a in near if a.startswith(family)], [a for a in near if not a.startswith(family)]):
            fitting = [alias for alias in names if self.is_like(outline(near[alias]))]
            if fitting:
                return fitting
        return []

    def is_like(self, model: nn.Module) -> bool:
        """Whether names and shapes are a model's, but for what depends on the input size."""
        own, state = model.state_dict(), self.state
        same = all(
            name in state and (state[name].shape == value.shape or any(word in name for word in SIZED))
            for name, value in own.items()
        )
        biased = any(name not in own and name.endswith(("q_bias", "v_bias")) and state[name].any() for name in state)
        return same and not biased and self.difference(model) is None


class OtherModelError(WeightsError):
    """What a configuration says that shapes do not."""


def read_checkpoint(place: Path, source: str | None = None) -> Checkpoint:
    """Read a file, or a folder that holds one file, or shards and their index; ``source`` is what errors call it.

    Raises WeightsError where there is nothing of the kind, or it cannot be read.
    """
    name = source or place.name
    if not place.is_dir():
        beside = place.name in WHOLE or place.name in INDICES
        return Checkpoint(name, read_weights(place), config_of(place.parent) if beside else {})
    whole = next((place / file for file in WHOLE if (place / file).is_file()), None)
    index = next((place / file for file in INDICES if (place / file).is_file()), None)
    if whole is None and index is None:
        raise WeightsError(f"{name} holds no weights: a folder needs {' or '.join((WHOLE[0], INDICES[0]))}")
    return Checkpoint(name, read_weights(*([whole] if whole else shards_of(index))), config_of(place))


def shards_of(index: Path | None) -> list[Path]:
    """Return the files that an index names."""
    found = read_json(index)
    placed = found.get("weight_map")
    if index is None or not isinstance(placed, Mapping):
        raise WeightsError(f"{index} names no shards (weight_map)")
    return [index.parent / name for name in sorted(set(map(str, placed.values())))]


def config_of(folder: Path) -> dict[str, Any]:
    """Return what config.json says of the vision model, nothing where there is none."""
    path = folder / "config.json"
    config = read_json(path) if path.is_file() else {}
    return config.get("vision_config") or config


def read_json(path: Path | None) -> dict[str, Any]:
    """Read a JSON object; raises WeightsError where it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path} is no JSON object")
    return found
