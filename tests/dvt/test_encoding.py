import math

import numpy as np
import pytest
import torch

from dvt import SolverError
from dvt.encoding import GridOptions, PyTorchGrid, TinyCudaGrid, encoding_backend

SMALL = GridOptions(levels=5, features=2, base=4, finest=40, log2_entries=8)  # the upper levels are hashed


def plain(grid: PyTorchGrid, place: tuple[float, float]) -> list[float]:
    """One place through the grid as the paper and tiny-cuda-nn define it, entry by entry."""
    options = grid.options
    entries = grid.table.detach().reshape(-1, options.features).tolist()
    growth = (options.finest / options.base) ** (1 / (options.levels - 1))
    out, first = [], 0
    for level in range(options.levels):
        scale = np.float32(options.base * growth**level) - np.float32(1)
        lines = math.ceil(scale - 1e-4) + 1
        size = min((lines * lines + 7) // 8 * 8, 2**options.log2_entries)
        x, y = (np.float32(v) * scale + np.float32(0.5) for v in place)
        values = [0.0] * options.features
        for row, wy in ((int(y), 1 - y % 1), (int(y) + 1, y % 1)):
            for column, wx in ((int(x), 1 - x % 1), (int(x) + 1, x % 1)):
                hashed = (column ^ (row * 2654435761 % 2**32)) % size
                entry = entries[first + (hashed if lines * lines > size else (column + row * lines) % size)]
                values = [v + float(wx * wy) * e for v, e in zip(values, entry, strict=True)]
        out += values
        first += size
    return out


def test_the_grid_is_the_papers_level_by_level_hashed_levels_too() -> None:
    grid = PyTorchGrid(SMALL, torch.Generator().manual_seed(0))
    assert [size for size in SMALL.entries() if size == 256] == [256, 256]
    places = [(0.0, 0.0), (1.0, 1.0), (0.31, 0.77), (0.5, 0.999), (0.125, 0.25)]
    found = grid(torch.tensor(places))
    assert found.shape == (5, 10)
    np.testing.assert_allclose(found.detach().numpy(), [plain(grid, place) for place in places], atol=1e-9)


def test_a_plane_in_the_table_is_a_plane_between_the_lines() -> None:
    options = GridOptions(levels=1, features=1, base=9, finest=9)
    grid = PyTorchGrid(options)
    with torch.no_grad():
        row, column = torch.arange(81) // 9, torch.arange(81) % 9
        grid.table[:81] = (2.0 * column + 3.0 * row).float()
    places = torch.rand(100, 2, generator=torch.Generator().manual_seed(0)) * 0.9
    expected = 2 * (8 * places[:, 0] + 0.5) + 3 * (8 * places[:, 1] + 0.5)
    torch.testing.assert_close(grid(places)[:, 0], expected)


def test_gradients_of_the_table_are_those_of_plain_indexing() -> None:
    grid = PyTorchGrid(SMALL, torch.Generator().manual_seed(0))
    places = torch.rand(300, 2, generator=torch.Generator().manual_seed(1))
    (grid(places) ** 2).sum().backward()
    nodes, weights = grid.corners(places)
    table = grid.table.detach().clone().requires_grad_()
    ((table.view(-1, 2)[nodes] * weights[..., None]).sum(dim=2) ** 2).sum().backward()
    assert grid.table.grad is not None
    torch.testing.assert_close(grid.table.grad, table.grad, atol=1e-9, rtol=1e-5)


def test_the_papers_grid_is_dense_but_for_nothing() -> None:
    entries = GridOptions().entries()
    assert len(entries) == 16
    assert entries[0] == 256
    assert max(entries) <= 2**20


def test_backends_are_chosen_and_refused_in_words() -> None:
    cpu = torch.device("cpu")
    assert encoding_backend("auto", cpu) == "pytorch"
    with pytest.raises(SolverError, match="needs a CUDA device"):
        encoding_backend("tinycudann", cpu)
    with pytest.raises(SolverError, match="choose auto"):
        encoding_backend("jax", cpu)


@pytest.mark.parametrize("bad", [{"levels": 0}, {"base": 1}, {"finest": 8}, {"log2_entries": 30}])
def test_grids_that_cannot_be_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(SolverError):
        GridOptions(**bad)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tinycudann_computes_the_same_function_level_by_level() -> None:
    pytest.importorskip("tinycudann", reason="needs tinycudann")
    options = GridOptions()
    ours = PyTorchGrid(options, torch.Generator().manual_seed(0)).cuda()
    theirs = TinyCudaGrid(options, torch.Generator().manual_seed(0)).cuda()
    places = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(1)).cuda()
    a, b = ours(places).unflatten(-1, (16, 8)), theirs(places).unflatten(-1, (16, 8))
    for level in range(options.levels):
        torch.testing.assert_close(a[:, level], b[:, level], atol=1e-6, rtol=1e-3)
