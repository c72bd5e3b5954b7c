"""featstore: compute dense ViT features once, clean them, and train on them ever after."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dataset import FeatureDataset
    from .grid_batches import GridBatchSampler
    from .loading import loader
    from .opening import open_features as open  # noqa: A004
    from .samples import collate
    from .stream import FeatureStream

__all__ = ["FeatureDataset", "FeatureStream", "GridBatchSampler", "collate", "loader", "open"]

PLACES = {
    "FeatureDataset": ("dataset", "FeatureDataset"),
    "FeatureStream": ("stream", "FeatureStream"),
    "GridBatchSampler": ("grid_batches", "GridBatchSampler"),
    "collate": ("samples", "collate"),
    "loader": ("loading", "loader"),
    "open": ("opening", "open_features"),
}


def __getattr__(name: str) -> Any:
    """Import readers, and torch with them, only when they are asked for."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = PLACES[name]
    return getattr(import_module(f".{module}", __name__), attribute)
