"""In which precision a model runs: float32, or bfloat16 by autocast with weights kept in float32."""

from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["DTYPES", "autocast"]

DTYPES = {"float32": None, "bfloat16": torch.bfloat16}


def autocast(device: torch.device, dtype: str) -> AbstractContextManager[object]:
    """Return the context to run a model in."""
    kind = DTYPES[dtype]
    return torch.autocast(device.type, kind) if kind else nullcontext()
