from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from featstore.compute import PARTS
from featstore.errors import InputError
from featstore.quantise import fitting, quantise, residual_of


@dataclass
class Parts:
    raw: Any
    clean: Any
    artifact: Any
    prefix: Any = None
    stats: Any = None


def half(*values: float) -> NDArray[np.float16]:
    return np.array(values, np.float16).reshape(1, 1, -1)


def test_the_residual_is_exact_where_large_maps_cancel() -> None:
    """2048 - 2^-24 - 2048: float32 loses the small one, which float16 holds."""
    residual = residual_of(half(2048), half(2.0**-24), half(2048))
    assert residual.tolist() == [[[-(2.0**-24)]]]


def test_the_residual_is_rounded_once_whatever_the_magnitudes() -> None:
    generator = np.random.default_rng(0)
    raw, clean, artifact = (
        (generator.standard_normal((16, 16, 64)) * 2.0 ** generator.integers(-20, 13, (16, 16, 64))).astype(np.float16)
        for _ in range(3)
    )
    exact = raw.astype(np.float64) - clean.astype(np.float64) - artifact.astype(np.float64)
    residual = residual_of(raw, clean, artifact)
    unit = np.spacing(np.abs(residual)).astype(np.float64)
    assert (np.abs(exact - residual.astype(np.float64)) <= unit / 2).all()


def test_a_residual_that_nobody_stores_may_be_anything() -> None:
    parts = Parts(half(6e4), half(-6e4), half(0))
    assert list(quantise(parts, ("raw", "clean"))) == ["raw", "clean"]
    with pytest.raises(InputError, match=r"residual feature of magnitude 1\.2e\+05 does not fit float16"):
        quantise(parts, PARTS)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_said_to_be_none(bad: float) -> None:
    with pytest.raises(InputError, match="a clean feature is NaN or infinite"):
        quantise(Parts(half(1), half(bad), half(1)), ("clean",))


def test_the_largest_float16_is_stored_and_a_larger_one_refused() -> None:
    assert quantise(Parts(half(65504, -65504), None, None), ("raw",))["raw"].ravel().tolist() == [65504, -65504]
    with pytest.raises(InputError, match="does not fit float16"):
        quantise(Parts(np.full((1, 1, 1), -65519.0), None, None), ("raw",))


def test_a_raw_only_decomposition_has_raw_alone() -> None:
    parts = Parts(half(1), None, None)
    assert list(quantise(parts, ("raw",))) == ["raw"]
    for name in ("clean", "artifact", "residual"):
        with pytest.raises(InputError, match=f"no {name} to store, only raw"):
            quantise(parts, ("raw", name))


def test_what_is_stored_fits_the_header() -> None:
    assert fitting("a", "raw", half(1, 2), (1, 1, 2)).tolist() == [[[1, 2]]]
    with pytest.raises(InputError, match="a has no raw"):
        fitting("a", "raw", None, (1, 1, 2))
    with pytest.raises(InputError, match=r"raw of a is \(1, 1, 2\) float16, this shard holds \(1, 1, 3\)"):
        fitting("a", "raw", half(1, 2), (1, 1, 3))
    with pytest.raises(InputError, match="float32"):
        fitting("a", "raw", half(1).astype(np.float32), (1, 1, 1))  # type: ignore[arg-type]
