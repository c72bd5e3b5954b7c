"""The figure shows what is planted where it is planted: pixels, not just a file."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from featstore.diagnosis_figure import Curves, Panel, save_figure

GREEN, LOW, HIGH, RING = (20, 220, 40), (0, 34, 78), (254, 232, 56), (213, 94, 0)
"""The photograph, the ends of the colour map cividis, and the colour of rings."""


def panel(place: tuple[int, int], title: str = "planted", layers: int = 1) -> Panel:
    norms = np.ones((2, 4, 4), np.float32) * 3
    norms[0][place] = 90
    names = [*map(str, range(layers)), "norm"]
    norm = np.full_like(norms, 5) + np.linspace(0, 1, 32).reshape(2, 4, 4)
    maps = [norms] * layers + [norm.astype(np.float32)]
    curves = Curves(
        *(
            names,
            maps,
            [values > 6 for values in maps],
            {"class": [np.ones(2)] * len(maps), "register 1": [np.ones(2)] * len(maps)},
        ),
        *([0.1] * len(maps), [float("nan")] * len(maps), [0.2] * len(maps), 0.15),
    )
    return Panel(title, curves, [0], [("photo", np.full((30, 60, 3), GREEN, np.uint8))])


def near(picture: NDArray[np.int64], colour: tuple[int, int, int], within: int = 6) -> NDArray[np.bool_]:
    return (np.abs(picture - colour) <= within).all(axis=-1)


def draw(path: Path, *panels: Panel) -> NDArray[np.int64]:
    save_figure(panels, "norm above 2 × the median", path)
    return np.array(Image.open(path).convert("RGB")).astype(np.int64)


def box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Top, left, height and width of what has at least 25 pixels in its row and column."""
    rows, columns = np.flatnonzero(mask.sum(axis=1) >= 25), np.flatnonzero(mask.sum(axis=0) >= 25)
    return int(rows[0]), int(columns[0]), int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


@pytest.mark.parametrize("place", [(0, 0), (1, 2), (3, 1)])
def test_the_planted_token_is_bright_and_ringed_in_its_cell(tmp_path: Path, place: tuple[int, int]) -> None:
    picture = draw(tmp_path / "norms.png", panel(place))
    dark = near(picture, LOW)
    dark[:, dark.sum(axis=0) < 60] = False  # the colour bar has as dark an end
    top, left, height, width = box(dark | (near(picture, HIGH) & (dark.sum(axis=0) >= 60)))
    cell = height / 4
    assert abs(height - width) <= 3
    rows, columns = np.nonzero(near(picture[top : top + height, left : left + width], RING, 2))
    assert len(rows) > 20
    assert (int(rows.mean() // cell), int(columns.mean() // cell)) == place
    middle = picture[int(top + (place[0] + 0.5) * cell), int(left + (place[1] + 0.5) * cell)]
    assert near(middle, HIGH, 8)
    other = ((place[0] + 2) % 4, (place[1] + 2) % 4)
    assert near(picture[int(top + (other[0] + 0.5) * cell), int(left + (other[1] + 0.5) * cell)], LOW)


def test_photographs_stand_beside_their_maps_and_panels_below_each_other(tmp_path: Path) -> None:
    one = draw(tmp_path / "one.png", panel((1, 1)))
    two = draw(tmp_path / "two.png", panel((1, 1)), panel((2, 2), "the other", layers=30))
    assert two.shape == (2 * one.shape[0], one.shape[1], 3)
    halves = np.split(two, 2)
    for picture in (one, *halves):
        top, left, height, width = box(near(picture, GREEN))
        assert abs(height - width) <= 3  # squashed to the input, as the model sees it
        map_top, map_left, *_ = box(near(picture, LOW))
        assert abs(map_top - top) <= 2
        assert map_left > left + width


def test_the_same_figure_has_the_same_bytes_and_stays_small(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    photographs = [(f"photo {n}", generator.integers(0, 256, (200, 240, 3), dtype=np.uint8)) for n in range(2)]
    planted = panel((1, 1))
    norms = [generator.uniform(1, 9, (3, 20, 20)).astype(np.float32) for _ in planted.curves.names]
    curves = Curves(
        planted.curves.names, norms, [values > 8 for values in norms], {}, [0.1, 0.2], [0.1, 0.1], [np.nan] * 2, np.nan
    )
    noisy = Panel("noise", curves, [0], photographs[:2])
    paths = [save_figure([noisy], "any", tmp_path / name) for name in ("a.png", "b.png")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert len(paths[0].read_bytes()) < 300_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]
