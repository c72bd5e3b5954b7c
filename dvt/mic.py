"""The maximal information coefficient of two samples: how far one is a function of the other, whatever the function.

Reshef et al., "Detecting novel associations in large data sets", Science 334 (2011), 1518-1524, with the search for grids of
its supporting text (ApproxMaxMI): rows hold equally many points, columns are the best that can be put together of clumps.
"""

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

__all__ = ["maximal_information"]


def maximal_information(
    x: NDArray[np.floating], y: NDArray[np.floating], exponent: float = 0.6, clumps: float = 15.0
) -> float:
    """Return the MIC of n pairs in [0, 1]: the largest mutual information over its bound, of grids of n^``exponent`` cells.

    Grids with fewer take part. One of c columns and r rows counts as I / log min(c, r); its columns are made of at most
    ``clumps`` times as many clumps. Only the order of values counts. It is 1 for a function without noise; of independent
    samples it is about 0.25 for n = 100 and 0.13 for n = 1000: chance. Raises ValueError for samples of other shapes than (n,).
    """
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"MIC is of two samples of equal length, not of shapes {x.shape} and {y.shape}")
    if len(x) < 2:
        return 0.0
    cells = max(len(x) ** exponent, 4.0)
    logs = xlogx(len(x))
    ranks = [np.unique(values, return_inverse=True)[1] for values in (x, y)]
    return max(best_of(one, two, cells, clumps, logs) for one, two in (ranks, ranks[::-1]))


def xlogx(most: int) -> NDArray[np.float64]:
    """Return k log k for k from 0 to ``most``, 0 for 0."""
    counts = np.arange(most + 1, dtype=np.float64)
    return counts * np.log(np.maximum(counts, 1))


def best_of(x: NDArray[np.intp], y: NDArray[np.intp], cells: float, clumps: float, logs: NDArray[np.float64]) -> float:
    """Return the largest normalised information of grids whose rows hold equally many points; ``x``, ``y`` are dense ranks."""
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    groups = np.bincount(y)
    best = 0.0
    for rows in range(2, int(cells / 2) + 1):
        columns = int(cells / rows)
        row = equal_rows(groups, rows)[y]
        ends = clumps_of(x, row)
        most = max(int(clumps * columns), 1)
        if len(ends) > most:
            sizes = np.diff(ends, prepend=0)
            ends = ends[np.append(np.diff(equal_rows(sizes, most)) > 0, True)]
        information = best_columns(row, ends, columns, logs)
        bound = np.log(np.minimum(np.arange(2, columns + 1), rows))
        best = max(best, float((information / bound).max(initial=0.0)))
    return best


def equal_rows(groups: NDArray[np.intp], rows: int) -> NDArray[np.intp]:
    """Return the row of each group of equal values, given how many points each has: rows hold as nearly the same as can be."""
    ends: list[int] = np.cumsum(groups).tolist()
    found = np.full(len(groups), rows - 1)
    first, before = 0, 0
    for row in range(rows):
        if first == len(groups):
            break
        goal = before + (ends[-1] - before) / (rows - row)
        last = max(bisect_right(ends, goal), first + 1)
        if last < len(groups) and ends[last] - goal < goal - ends[last - 1]:
            last += 1  # one more group comes nearer, though it goes beyond
        found[first:last] = row
        first, before = last, ends[last - 1]
    return found


def clumps_of(x: NDArray[np.intp], row: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return where clumps end, of points sorted by ``x``: neighbours of one row, and points of one value, are not parted."""
    starts = np.flatnonzero(np.diff(x, prepend=-1))
    low, high = np.minimum.reduceat(row, starts), np.maximum.reduceat(row, starts)
    mixed = low != high
    apart = (low[1:] != low[:-1]) | mixed[1:] | mixed[:-1]
    return np.append(starts[1:][apart], len(x))


def best_columns(
    row: NDArray[np.intp], ends: NDArray[np.intp], columns: int, logs: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the largest mutual information [nats] with 2 to ``columns`` columns, each a run of clumps.

    Information is H(rows) less what is left within columns, a sum over columns: so the best l columns of the first t
    clumps are the best l - 1 of the first s and one from s to t, for the best s.
    """
    count = len(row)
    held = np.zeros((count + 1, int(row.max()) + 1), np.int32)
    held[np.arange(1, count + 1), row] = 1
    held = np.cumsum(held, axis=0, dtype=np.int32)[np.append(0, ends)]
    sizes = held.sum(axis=1)
    within = -logs[np.abs(sizes[:, None] - sizes)]  # of a column from clump s (second) to clump t (first)
    for counts in held.T:
        within += logs[np.abs(counts[:, None] - counts)]
    within[np.triu_indices(len(sizes))] = -np.inf  # a column holds a clump at least
    whole = logs[count] - logs[held[-1]].sum()
    found, best = within[:, 0], []
    sums = np.empty_like(within)
    for _ in range(min(columns, len(ends)) - 1):
        found = np.add(within, found, out=sums).max(axis=1)
        best.append(found[-1])
    best += [best[-1] if best else within[-1, 0]] * (columns - 1 - len(best))
    return np.asarray((np.array(best) + whole) / count)
