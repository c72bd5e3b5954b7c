"""``featstore backbones``."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from . import options
from .printing import emit_json, plural, table_text

if TYPE_CHECKING:
    from dvt import BackboneFacts

__all__ = ["backbones"]

COLUMNS = (
    "alias",
    "timm name",
    "patch",
    "width",
    "depth",
    "native",
    "default",
    "grid",
    "prefix",
    "parameters",
    "licence",
    "weights here",
)


@click.command()
@click.argument("pattern", required=False)
@click.option(
    "--all",
    "every",
    is_flag=True,
    help="Look through every ViT that timm has weights for, not aliases alone (without PATTERN half a minute).",
)
@options.as_json
def backbones(pattern: str | None, every: bool, as_json: bool) -> None:
    """List the backbones: what --backbone takes.

    PATTERN is part of an alias or timm name (dinov3, clip, patch8), or a shell pattern for a whole one ('dino*_b').

    native: the input size of the pretraining; default: what images are resized to here, and the grid of patches that gives
    (--input-size takes others, but for those with an asterisk). width: channels of the features. prefix: class and register
    tokens. licence: that of the weights by timm's own record, ? where it has none; their authors' page decides. Nothing is
    downloaded; weights here: in the hub's cache, or in the demo extra.

    \b
    Examples:
      featstore backbones
      featstore backbones dinov3
      featstore backbones 'vit_*_reg*' --all
      featstore backbones siglip --json
    """
    import dvt

    found = dvt.find_backbones(pattern, every)
    if as_json:
        emit_json([asdict(facts) for facts in found])
        return
    click.echo(table_text(COLUMNS, [row(facts) for facts in found]))
    here = sum(facts.weights is not None for facts in found)
    click.echo(f"\n{plural(len(found), 'backbone')}, the weights of {here} here")


def row(facts: "BackboneFacts") -> list[object]:
    """Return one line of the table."""
    return [
        facts.alias,
        facts.timm_name,
        facts.patch,
        facts.width,
        facts.depth,
        size_text(facts.native),
        size_text(facts.default) + ("" if facts.any_size else "*"),
        "×".join(map(str, facts.grid)),
        facts.prefix_tokens,
        count_text(facts.parameters),
        facts.licence or "?",
        facts.weights,
    ]


def size_text(size: tuple[int, int]) -> str:
    """Return a side of a square, else height and width [pixels]."""
    return str(size[0]) if size[0] == size[1] else "×".join(map(str, size))


def count_text(count: int) -> str:
    """Return a number of parameters in millions."""
    return f"{count / 1e6:,.0f} M" if count >= 1e7 else f"{count / 1e6:.1f} M"
