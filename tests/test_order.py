"""The order of an epoch: every sample once over all ranks, whatever their number, seeded, a few shards at a time."""

import numpy as np
import pytest

from featstore.errors import InputError
from featstore.order import Order

SHARDS = np.repeat(np.arange(23), 7)[:157].astype(np.int32)
COUNT = len(SHARDS)


@pytest.mark.parametrize("shuffle", [False, True, "shards"])
@pytest.mark.parametrize("world", [1, 2, 3, 8, 200])
@pytest.mark.parametrize("uneven", ["keep", "pad", "drop"])
def test_ranks_share_the_samples_out(shuffle: bool | str, world: int, uneven: str) -> None:
    orders = [Order(shuffle, 5, 4, 3, False, rank, world, uneven) for rank in range(world)]
    shares = [order.share(SHARDS, epoch=2) for order in orders]
    assert [len(share) for share in shares] == [order.length(COUNT) for order in orders]
    seen = np.bincount(np.concatenate(shares), minlength=COUNT)
    lengths = {len(share) for share in shares}
    if uneven == "keep":
        assert (seen == 1).all()
        assert max(lengths) - min(lengths) <= 1
    elif uneven == "pad":
        assert len(lengths) == 1
        assert seen.min() == 1
        assert seen.sum() - COUNT < world
    else:
        assert len(lengths) == 1
        assert seen.max(initial=0) <= 1
        assert COUNT - seen.sum() < world


def test_no_shuffling_goes_by_index() -> None:
    assert Order(False).share(SHARDS, 3).tolist() == list(range(COUNT))


@pytest.mark.parametrize("shuffle", [True, "shards"])
def test_seed_and_epoch_decide_the_order(shuffle: bool | str) -> None:
    one = Order(shuffle, seed=1).share(SHARDS, 0)
    assert one.tolist() == Order(shuffle, seed=1).share(SHARDS, 0).tolist()
    for other in (Order(shuffle, seed=1).share(SHARDS, 1), Order(shuffle, seed=2).share(SHARDS, 0)):
        assert one.tolist() != other.tolist()


def test_few_shards_are_open_at_once_and_read_once() -> None:
    order = SHARDS[Order("shards", open_shards=4).share(SHARDS, 0)]
    last = {shard: place for place, shard in enumerate(order.tolist())}
    first = {shard: place for place, shard in reversed(list(enumerate(order.tolist())))}
    open_at = [sum(first[s] <= place <= last[s] for s in first) for place in range(COUNT)]
    assert max(open_at) == 4
    assert (np.diff(order) != 0).sum() > COUNT / 2  # mixed within, not one shard after the other


def test_orders_are_near_uniform_over_epochs() -> None:
    """Each sample's mean place over many epochs is near the middle, and all first places differ."""
    orders = np.array([Order("shards", open_shards=4).share(SHARDS, epoch) for epoch in range(400)])
    places = np.argsort(orders, axis=1).mean(axis=0)
    spread = COUNT / np.sqrt(12 * 400)
    assert np.abs(places - (COUNT - 1) / 2).max() < 5 * spread
    assert len(np.unique(orders[:, 0])) > 100


@pytest.mark.parametrize(("drop_last", "count"), [(False, 53), (True, 52)])
def test_batches_are_counted(drop_last: bool, count: int) -> None:
    assert Order(batch_size=3, drop_last=drop_last).batches(COUNT) == count


@pytest.mark.parametrize(
    "options", [{"shuffle": "all"}, {"uneven": "cut"}, {"batch_size": 0}, {"rank": 2, "world_size": 2}]
)
def test_nonsense_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Order(**options)  # type: ignore[arg-type]
