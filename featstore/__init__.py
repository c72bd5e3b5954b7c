"""featstore: compute dense ViT features once, clean them, and train on them ever after."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dataset import FeatureDataset
    from .opening import open_features as open  # noqa: A004

__all__ = ["FeatureDataset", "open"]


def __getattr__(name: str) -> Any:
    """Import readers, and torch with them, only when they are asked for."""
    if name == "FeatureDataset":
        from .dataset import FeatureDataset

        return FeatureDataset
    if name == "open":
        from .opening import open_features

        return open_features
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
