"""What transformers' own models compute: small ones, with weights by a formula, written to tests/data/transformers.npz.

    python tests/support/transformers_golden.py tests/data/transformers.npz      # needs transformers, which no test does

The file holds, for each case, config.json and the names and shapes of the tensors as save_pretrained writes them, the hidden
state after the first block and the last one. Weights and pictures are not in it: they follow from the formula.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
AT14 = SMALL | {"patch_size": 14, "image_size": 42}
AT16 = SMALL | {"patch_size": 16, "image_size": 48, "intermediate_size": 64}
TIMM = {"embed_dim": 16, "num_heads": 2, "depth": 2}
DECODER = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
RELATIVE = {"use_relative_position_bias": True, "use_absolute_position_embeddings": False}
# class and configuration of transformers, then timm's model, what makes it as small, and the input (height, width)
CASES: dict[str, tuple[str, dict[str, Any], str, dict[str, Any], tuple[int, int]]] = {
    "dinov2": ("Dinov2", AT14, "vit_small_patch14_dinov2", {"img_size": 42}, (42, 42)),
    "dinov2 giant": (
        *("Dinov2", AT14 | {"use_swiglu_ffn": True}, "vit_giant_patch14_dinov2"),
        *({"img_size": 42, "mlp_ratio": 6.0}, (42, 42)),
    ),
    "dinov2 registers": ("Dinov2WithRegisters", AT14, "vit_small_patch14_reg4_dinov2", {"img_size": 42}, (42, 42)),
    "dinov3": ("DINOv3ViT", AT16 | {"num_register_tokens": 4}, "vit_small_patch16_dinov3_qkvb", {}, (32, 64)),
    "dinov3 gated": (
        *("DINOv3ViT", AT16 | {"num_register_tokens": 4, "use_gated_mlp": True, "hidden_act": "silu"}),
        *("vit_huge_plus_patch16_dinov3_qkvb", {}, (48, 48)),
    ),
    "dino": ("ViT", AT16, "vit_small_patch16_224", {"img_size": 48}, (48, 48)),
    "mae": ("ViTMAE", AT16 | DECODER | {"mask_ratio": 0.0}, "vit_base_patch16_224", {"img_size": 48}, (48, 48)),
    "ijepa": ("IJepa", AT16, "vit_huge_patch16_gap_448", {"img_size": 48}, (48, 48)),
    "beit": ("Beit", AT16 | RELATIVE, "beit_base_patch16_224", {"img_size": 48}, (48, 48)),
    "siglip": ("SiglipVision", AT16, "vit_so400m_patch16_siglip_256", {"img_size": 48, "mlp_ratio": 4.0}, (48, 48)),
    "clip": ("CLIPVision", AT16, "vit_base_patch16_clip_quickgelu_224", {"img_size": 48}, (48, 48)),
}


def formula(shape: tuple[int, ...], number: int) -> Tensor:
    """Values in ±0.3 that look like noise, other ones for every number: a sine whose frequency rises."""
    count = torch.arange(int(np.prod(shape)), dtype=torch.float64) + 1
    return (0.3 * torch.sin(count**2 * 0.017 + count * (number + 1) * 0.61)).reshape(shape).float()


def weights(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """The tensors of a case: by the formula, numbered in the order of their names."""
    return {name: formula(tuple(shapes[name]), number) for number, name in enumerate(sorted(shapes))}


def picture(size: tuple[int, int]) -> Tensor:
    return 3 * formula((1, 3, *size), 7)


def reference(kind: str, options: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Make one of transformers' models, save it, give it the formula's weights, run it."""
    import transformers
    from safetensors.torch import load_file, save_file

    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**options))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        file, config = Path(folder, "model.safetensors"), json.loads(Path(folder, "config.json").read_text())
        shapes = {name: list(value.shape) for name, value in load_file(file).items()}
        save_file(weights(shapes), file, {"format": "pt"})
        model = type(model).from_pretrained(folder).eval()
    given = {"noise": torch.arange(9.0)[None]} if kind == "ViTMAE" else {}  # else it shuffles the patches
    with torch.inference_mode():
        found = model(picture(size), output_hidden_states=True, **given)
    kept = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "patch_size")
    return {
        "config": {key: value for key, value in config.items() if key in kept or key.startswith("use_")},
        "shapes": shapes,
        "first": found.hidden_states[1].numpy(),
        "last": found.last_hidden_state.numpy(),
    }


def main(target: Path) -> None:
    arrays: dict[str, Any] = {}
    for name, (kind, options, _, _, size) in CASES.items():
        found = reference(kind, options, size)
        arrays |= {f"{name}/first": found.pop("first"), f"{name}/last": found.pop("last")}
        arrays[name] = np.array(json.dumps(found))
    np.savez_compressed(target, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
