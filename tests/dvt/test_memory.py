import pytest

from dvt import SolverError
from dvt.memory import Footprint, divide

ONE = Footprint(
    samples=65 * 1369, positions=1369, channels=384, nodes=4096, patches=1369, pixels=3 * 518**2, model=88_000_000
)


def test_features_are_counted_exactly() -> None:
    assert ONE.features() == 65 * 1369 * 384 * 4


def test_images_are_given_up_before_views() -> None:
    whole = divide(ONE, None, 32, 4, in_flight=2)
    assert (whole.forward_batch, whole.images) == (32, 4)
    less = divide(ONE, whole.bytes - 1, 32, 4, in_flight=2)
    assert (less.forward_batch, less.images) == (32, 3)
    least = divide(ONE, divide(ONE, None, 1, 1, 1).bytes, 32, 4, in_flight=1)
    assert (least.forward_batch, least.images) == (1, 1)
    with pytest.raises(SolverError, match="MB"):
        divide(ONE, 1000, 32, 4, in_flight=1)
