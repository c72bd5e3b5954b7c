"""The recipe: everything that decides the numbers of a version, and its digest."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import InputError

__all__ = ["FORMAT", "Recipe", "canonical"]

FORMAT = 1


def canonical(value: Any) -> str:
    """Return the one JSON text of ``value``: keys sorted, no spaces, no NaN.

    Raises InputError for what JSON cannot hold.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"a recipe holds plain JSON values only: {error}") from error


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the numbers, as canonical JSON, with its SHA-256 in hex."""

    text: str
    digest: str

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> "Recipe":
        """Make the recipe of a decomposer's parameters; the store's format number joins them."""
        text = canonical({"format": FORMAT, **parameters})
        return cls(text, hashlib.sha256(text.encode()).hexdigest())

    def parameters(self) -> dict[str, Any]:
        """Return the recipe as a dict."""
        loaded: dict[str, Any] = json.loads(self.text)
        return loaded
