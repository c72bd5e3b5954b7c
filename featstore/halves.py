"""float16 to wider floats and back, exactly as numpy does it.

By PyTorch where the program has it loaded, as every build and every reader of tensors has: it asks the processor, numpy goes
number by number.
"""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK", "narrow_into", "widened"]

BLOCK = 1 << 15
"""How many values are worked on at a time: they stay in the processor's cache, and PyTorch shares so few out to no threads."""


def widened(values: NDArray[np.float16], dtype: type[np.floating[Any]]) -> NDArray[Any]:
    """Return float16 values as float32 or float64."""
    wide: NDArray[Any] = np.empty(values.shape, dtype)
    convert(wide, values)
    return wide


def narrow_into(out: NDArray[np.float16], values: NDArray[np.float32]) -> None:
    """Round float32 to float16, to nearest, ties to even; ``out`` is contiguous."""
    convert(out, values)


def convert(out: NDArray[Any], values: NDArray[Any]) -> None:
    """Copy values into a contiguous array of another type."""
    torch = sys.modules.get("torch")
    if torch is None:
        out[...] = values
        return
    to, given = out.reshape(-1), values.reshape(-1)
    # PyTorch warns of memory that it must not write, as a memory map is, though it only reads.
    given = given if given.flags.writeable else given.copy()
    for start in range(0, len(to), BLOCK):
        torch.from_numpy(to[start : start + BLOCK]).copy_(torch.from_numpy(given[start : start + BLOCK]))
