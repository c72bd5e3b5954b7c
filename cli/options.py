"""Options that several commands share, each declared once."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from featstore.filters import CODECS
from featstore.layout import STORES
from featstore.places import as_remote, path_of
from featstore.root import resolve_root

__all__ = [
    "Blocks",
    "Place",
    "Size",
    "Variants",
    "as_json",
    "compress",
    "dry_run",
    "force",
    "picked",
    "root",
    "source_options",
    "store",
]

F = TypeVar("F", bound=Callable[..., Any])


def picked(declared: Mapping[str, Callable[[Any], Any]], names: tuple[str, ...]) -> Callable[[F], F]:
    """Return a decorator that adds options of a family: those named, else all."""

    def add(command: F) -> F:
        for name in reversed(names or tuple(declared)):
            command = declared[name](command)
        return command

    return add


root = click.option(
    "--root",
    callback=lambda context, parameter, value: resolve_root(value),
    metavar="DIR",
    help="Folder of the store, or a URL (s3://bucket/store).  [default: $FEATSTORE_ROOT, else ./feature-store]",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Report as JSON on standard output.")
dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
force = click.option("--force", is_flag=True, help="Begin even where it cannot fit on the disk.")


def source_options(command: F) -> F:
    """Add --source and --layout."""
    layout = click.option(
        "--layout", metavar="NAME", help="How it is laid out: `featstore datasets` lists them.  [default: detected]"
    )
    source = click.option(
        "--source",
        type=Place(),
        metavar="DIR",
        help="Folder that holds the images, a tar, Parquet or .mat file of them, a table that names them; or a URL.  "
        "[default: where they were last time]",
    )
    return source(layout(command))


class Place(click.ParamType[Path]):
    """A local path, or a URL of any fsspec file system."""

    name = "PATH"

    def __init__(self, local: bool = False) -> None:
        """``local`` takes no URL."""
        self.local = local

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Path:
        """Tell a URL from a path; InputError where it holds credentials."""
        path = path_of(value)
        if self.local and as_remote(path) is not None:
            self.fail(
                f"{path} is a URL, this writes a local folder: give one, and copy it afterwards", parameter, context
            )
        return path


store = click.option(
    "--store",
    type=click.Choice(STORES),
    default=STORES[0],
    help="What numbers are kept as; int8 takes half the room, with an error, and is a version of its own.",
)
compress = click.option(
    "--compress",
    "codec",
    type=click.Choice(CODECS),
    default=CODECS[0],
    help="Lossless filter of the shards written now: smaller, and slower to read.",
)


class Variants(click.ParamType[tuple[str, ...]]):
    """A comma-separated list of variants."""

    name = "LIST"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> tuple[str, ...]:
        """Split at commas; names are checked where the method is known."""
        if isinstance(value, tuple):
            return value
        return tuple(word.strip() for word in str(value).split(",") if word.strip())


class Blocks(click.ParamType[tuple[int, ...]]):
    """``5,11``, or ``5,-1`` from the end: blocks from 0."""

    name = "LIST"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> tuple[int, ...]:
        """Return them in order."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(word) for word in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of blocks: give 5,11 or -1", parameter, context)


class Size(click.ParamType[tuple[int, int]]):
    """``518`` or ``518x392`` (height x width) [pixels]."""

    name = "SIZE"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> tuple[int, int]:
        """Parse one or two numbers."""
        if isinstance(value, tuple):
            return value
        words = str(value).lower().replace("×", "x").split("x")
        if len(words) > 2 or not all(word.isdigit() and int(word) for word in words):
            self.fail(f"{value!r} is no size: give 518, or 518x392 for height x width", parameter, context)
        return int(words[0]), int(words[-1])
