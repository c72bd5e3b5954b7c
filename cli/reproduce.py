"""The command that makes a version again, and back: what computes from that command."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featstore.compute import Decomposer
from featstore.errors import InputError, NotInStoreError
from featstore.layout import FLOAT16
from featstore.query import restricted
from featstore.recipe import Recipe
from featstore.storage import own_parameters
from featstore.versions import Version, find_version

from . import options as shared
from .compute import VIEWS, ComputeOptions, load_backbone, make_decomposer
from .compute_options import compute_options
from .method import Choice, choose_method
from .neighbours import SHIFTS
from .stage1_options import OPTIONS

if TYPE_CHECKING:
    from dvt import Backbone

__all__ = ["decomposer_of", "denoise_command", "reproduce_command"]

STAGE1 = ("solver", "views", *(name for name in OPTIONS if name not in ("memory", "encoding")))


@click.command("build")
@click.argument("name")
@compute_options
@shared.store
@click.pass_context
def parsed(context: click.Context, /, **_: Any) -> dict[str, Any]:
    """Read the options of a build."""
    return dict(context.params)


def reproduce_command(name: str, options: ComputeOptions, backbone: "Backbone", choice: Choice, store: str) -> str:
    """Return ``featstore build …`` with every option that decides numbers, also those that nobody gave."""
    recipe = backbone.recipe()
    given = {
        "backbone": options.backbone,
        "weights": weights_of(options, backbone),
        "method": options.method,
        "input_size": tuple(recipe["input"]),
        "resize": None if recipe.get("resize") == "squash" else recipe.get("resize"),
        "stride": recipe["stride"],
        "layer": recipe["layer"],
        "dtype": recipe["dtype"],
        "norm": options.norm,
    }
    if options.method == "stage1":
        given |= {key: getattr(options, key) for key in STAGE1}
        given |= {"views": options.views or (None if options.faithful else VIEWS), "artifact_prior": choice.reference}
    elif options.seed:
        given["seed"] = options.seed
    if options.method == "shift-mean":
        given["views"] = options.views or SHIFTS
    if options.method == "rasa":
        given["rasa_rounds"] = options.rasa_rounds
    if options.method == "test-time-registers":
        given |= {"register_neurons": options.register_neurons, "register_layer": options.register_layer}
    if options.method == "stage2":
        given["denoiser"] = choice.reference
    given |= stored_as(store)
    return shlex.join(["featstore", "build", name, *words(given)])


def stored_as(store: str) -> dict[str, str]:
    """Return --store where it is not at its default."""
    return {} if store == FLOAT16 else {"store": store}


def words(given: Mapping[str, Any]) -> list[str]:
    """Return options as words of a command line, without those that are at their default anyway."""
    told: list[str] = []
    known = {parameter.name: parameter for parameter in parsed.params}
    for key, value in given.items():
        option = known[key]
        if not isinstance(option, click.Option) or value is None:
            continue
        if option.is_flag:
            told += [] if value == (option.default is True) else [(option.opts if value else option.secondary_opts)[0]]
        else:
            told += [option.opts[0], written(key, value)]
    return told


def written(key: str, value: Any) -> str:
    """Return a value as its option reads it."""
    if isinstance(value, tuple):
        return ("x" if key in ("input_size", "crop_input", "clean_grid") else ",").join(map(str, value))
    return str(value)


def weights_of(options: ComputeOptions, backbone: "Backbone") -> str:
    """Return where the weights are from, files by their absolute path."""
    if options.weights is None:
        return "demo" if backbone.weights_source.startswith("demo") else "hub"
    named = options.weights in ("hub", "demo", "random") or options.weights.startswith("hub:")
    return options.weights if named else str(Path(options.weights).absolute())


def denoise_command(root: Path, source: Version, reference: str, store: str) -> str | None:
    """Return the build that makes what ``denoise`` makes of ``source``, kept as ``store``.

    None where that one's own is not known, or where no build does: ``source`` keeps its raw maps as int8.
    """
    command = recorded(root, source)
    if command is None or source.method == "imported":
        return None
    known = options_of(command)
    if known["store"] != FLOAT16:
        return None
    kept = ("backbone", "weights", "input_size", "resize", "stride", "layer", "dtype", "norm", "seed")
    given = {key: known[key] for key in kept} | {"method": "stage2", "denoiser": reference} | stored_as(store)
    return shlex.join(["featstore", "build", source.dataset, *words(given)])


def recorded(root: Path, version: Version) -> str | None:
    """Return the command that a version's provenance has."""
    with restricted(root) as connection:
        query = "SELECT provenance FROM versions WHERE dataset = ? AND backbone = ? AND digest = ?"
        rows = connection.execute(query, [version.dataset, version.backbone, version.digest]).fetchall()
    command = json.loads(rows[0][0]).get("reproduce") if rows else None
    return str(command) if command else None


def options_of(command: str) -> dict[str, Any]:
    """Return the options of a recorded command; raises InputError where this featstore does not know one of them."""
    try:
        context = parsed.make_context("featstore build", shlex.split(command)[2:])
    except click.ClickException as error:
        raise InputError(f"`{command}`, recorded with this version, cannot be run here: {error.message}") from error
    return dict(context.params)


def decomposer_of(root: Path, version: str, device: str = "auto", batch_size: int | None = None) -> Decomposer:
    """Return what computes a version's features again, made by the command that its provenance has.

    ``version`` is a name as ``find_version`` takes it. Raises NotInStoreError where no command was recorded, InputError where
    what it makes here is of another recipe (another file under the weights' name, say), and what loading the model raises.
    """
    with restricted(root) as connection:
        found = find_version(connection, version)
    command = recorded(root, found)
    if command is None:
        raise NotInStoreError(f"{found.name} does not tell by which command it was made: build it again by hand")
    chosen = options_of(command)
    name, _ = chosen.pop("name"), chosen.pop("store")
    compute = replace(ComputeOptions(**chosen), device=device, batch_size=batch_size)
    backbone = load_backbone(compute)
    choice = choose_method(root, name, compute, backbone, compute.method)
    decomposer = make_decomposer(choice.compute, backbone, choice.known)
    mine = Recipe.of(decomposer.recipe()).parameters()
    with restricted(root) as connection:
        row = connection.execute("SELECT recipe FROM versions WHERE version_id = ?", [found.version_id]).fetchall()
    theirs = own_parameters(json.loads(row[0][0]))
    if mine != theirs:
        other = [key for key in theirs if theirs[key] != mine.get(key)]
        raise InputError(f"`{command}` makes another version here than {found.name}: they differ in {', '.join(other)}")
    return decomposer
