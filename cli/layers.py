"""Several layers of one backbone in one pass: a version each."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from .compute import ComputeOptions, Several, at_layers
from .method import Choice, choose_method

__all__ = ["Chosen", "choose_layers", "first_layer"]

Chosen = list[tuple[Any, Choice]]
"""A backbone a layer, and what is computed with it."""


def first_layer(compute: ComputeOptions, layers: Sequence[int], context: click.Context) -> ComputeOptions:
    """Return the options to load the backbone with; raises UsageError where --layer and --layers are both given."""
    if not layers:
        return compute
    if context.get_parameter_source("layer") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--layer is one, --layers are several in one pass: give one of them")
    return replace(compute, layer=layers[0])


def choose_layers(
    root: Path,
    dataset: str,
    compute: ComputeOptions,
    backbone: Any,
    layers: Sequence[int],
    named: str | None,
    dry_run: bool,
) -> tuple[Chosen, Any]:
    """Return the backbone and the choice of method for each layer, and what ``make_decomposer`` is told is known.

    Without ``layers`` that is the backbone as it is. Raises UsageError where the best at hand is not one method for all.
    """
    chosen: Chosen = []
    for one in at_layers(backbone, layers):
        own = replace(compute, layer=one.layer) if layers else compute
        chosen.append((one, choose_method(root, dataset, own, one, named, dry_run)))
    if len(chosen) == 1 and not layers:
        return chosen, chosen[0][1].known
    methods = {choice.compute.method for _, choice in chosen}
    if len(methods) > 1:
        raise click.UsageError(f"the layers would take different methods ({', '.join(sorted(methods))}): give --method")
    return chosen, Several(tuple((choice.compute, choice.known) for _, choice in chosen))
