"""Columns of text as bytes of one width: a million names in one block of memory, without a million Python objects."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["text_column"]


def text_column(values: Sequence[str | None] | NDArray[np.object_]) -> NDArray[np.bytes_]:
    """Return texts as UTF-8 bytes (N,), all of the longest one's width; None and what is masked become empty.

    Several times faster than numpy's own way over its four-byte characters. Raises ValueError for a text that holds NUL,
    which numpy could not tell from the end.
    """
    if isinstance(values, np.ma.MaskedArray):
        absent, values = np.ma.getmaskarray(values), values.data.astype(object)
        values[absent] = None
    count = len(values)
    try:
        joined = "\0".join(values)  # type: ignore[arg-type]
    except TypeError:
        joined = "\0".join("" if value is None else value for value in values)
    flat = np.frombuffer(joined.encode(), np.uint8)
    ends = np.append(np.flatnonzero(flat == 0), len(flat))[: max(count, 1)]
    if count and joined.count("\0") != count - 1:
        raise ValueError("a text holds the character NUL")
    lengths = np.diff(ends, prepend=-1) - 1
    width = max(1, int(lengths.max(initial=0)))
    if count and lengths.min() == width:  # names of one length, as many data sets have them, lie in a table already
        return np.append(flat, np.uint8(0)).reshape(count, width + 1)[:, :width].copy().view(f"S{width}")[:, 0]
    block = np.zeros((count, width), np.uint8)
    if count:
        block[np.arange(width) < lengths[:, None]] = flat[flat != 0]
    return block.view(f"S{width}")[:, 0]
