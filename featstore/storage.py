"""What storing adds to a recipe: int8 moves numbers, and so does computing on what was kept as int8."""

import json
from collections.abc import Mapping
from typing import Any

import duckdb

from . import int8
from .errors import InputError
from .layout import INT8, STORES
from .recipe import Recipe

__all__ = ["own_parameters", "stored_recipe"]

STORAGE = STORE, COMPUTED_ON = ("store", "computed_on")
"""The keys that the store adds to a decomposer's own: how features are kept, and how those are that it computes on."""


def own_parameters(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe without what storing added: the decomposer's own, and the format."""
    return {key: value for key, value in recipe.items() if key not in STORAGE}


def stored_recipe(
    connection: duckdb.DuckDBPyConnection, parameters: Mapping[str, Any], store: str, computed_on: str | None
) -> Recipe:
    """Return the recipe of a decomposer's ``parameters``, kept as ``store``; ``computed_on`` is the digest of a version.

    Raises InputError for what features cannot be kept as.
    """
    if store not in STORES:
        raise InputError(f"features cannot be stored as {store!r}: choose from {', '.join(STORES)}")
    known = connection.execute("SELECT recipe FROM versions WHERE digest = ?", [computed_on]).fetchone()
    read_from = json.loads(known[0]).get(STORE) if known else None
    added = ({STORE: int8.RECIPE} if store == INT8 else {}) | ({COMPUTED_ON: read_from} if read_from else {})
    return Recipe.of({**parameters, **added})
