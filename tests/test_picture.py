from pathlib import Path

import numpy as np
import pytest
from fakes import FakeDecomposer, make_folder
from PIL import Image

from featstore.build import build_version
from featstore.components import basis, colours
from featstore.errors import NotInStoreError
from featstore.index import index_dataset
from featstore.picture import heat, save_picture
from featstore.plan import Request


def test_basis_finds_planted_directions_in_order_of_their_variance() -> None:
    generator = np.random.default_rng(0)
    directions = np.linalg.qr(generator.standard_normal((16, 3)))[0]
    tokens = (generator.standard_normal((5000, 3)) * [9, 5, 2]) @ directions.T + 7
    mean, found = basis(tokens.astype(np.float32))
    np.testing.assert_allclose(np.abs(directions.T @ found), np.eye(3), atol=0.05)
    np.testing.assert_allclose(mean, tokens.mean(axis=0), atol=1e-3)


def test_two_maps_share_one_basis_and_scale() -> None:
    generator = np.random.default_rng(1)
    one = generator.standard_normal((6, 7, 16)).astype(np.float32)
    same, twin = colours([one, one])
    np.testing.assert_array_equal(same, twin)
    _, brighter = colours([one, one * 2])
    assert brighter.std() > colours([one, one * 2])[0].std()


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_few_channels_and_flat_maps_are_drawn_too(channels: int) -> None:
    (flat,) = colours([np.ones((2, 3, channels), np.float32)])
    assert flat.shape == (2, 3, 3)
    assert len(np.unique(flat.reshape(-1, 3), axis=0)) == 1


def test_heat_goes_from_dark_to_bright() -> None:
    shades = heat(np.array([[0.0, 0.5, 1.0]], np.float32)).astype(int).sum(axis=-1)[0]
    assert shades[0] < shades[1] < shades[2]
    assert heat(np.zeros((2, 2), np.float32)).shape == (2, 2, 3)


def test_the_picture_shows_the_photograph_in_its_own_aspect(tmp_path: Path) -> None:
    root = tmp_path / "store"
    folder = make_folder(tmp_path / "pets", count=1)
    Image.new("RGB", (300, 150), (10, 200, 30)).save(folder / "dogs" / "000.png")
    index_dataset(root, "pets", folder)
    build_version(root, Request("pets", "fake"), FakeDecomposer())
    picture = np.array(Image.open(save_picture(root, "pets/fake/v1", tmp_path / "out" / "p.png")))
    green = (picture == (10, 200, 30)).all(axis=-1)
    rows, columns = np.nonzero(green)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (120, 240)
    with pytest.raises(NotInStoreError, match="no version"):
        save_picture(root, "pets/fake/v7", tmp_path / "p.png")
