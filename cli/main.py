"""The entry point: the group of commands, and the one boundary where errors become lines and exit codes."""

import os
import sys
import warnings
from collections.abc import Sequence

import click

from featstore.errors import FeatstoreError
from featstore.manifest import interruptible

from .backbones import backbones
from .bench import bench
from .bench_methods import methods
from .build import build
from .croissant import croissant
from .datasets import datasets
from .denoise import denoise
from .diagnose import diagnose
from .diff import diff
from .eval import eval_
from .export import export
from .figure import figure
from .gc import gc
from .import_ import import_
from .index import index
from .ls import ls
from .manifest import manifest
from .query import query
from .report import report
from .rm import rm
from .show import show
from .tag import tag
from .train import train
from .verify import verify
from .video import video
from .view import view

__all__ = ["cli", "main"]

DONE, ERROR, USAGE, INTERRUPTED = 0, 1, 2, 130

THREADED = {"ray", "featstore.viewer.server"}

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(context_settings=CONTEXT)
@click.version_option(package_name="featstore-dvt", prog_name="featstore")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Compute dense ViT features once, clean them, and train on them ever after.

    Try it on six photographs, with no download:  featstore build demo

    Exit codes: 0 done, 1 error, 2 wrong usage, 3 finished but something failed, 130 interrupted.
    """


for command in (
    index,
    backbones,
    build,
    train,
    denoise,
    query,
    ls,
    datasets,
    show,
    export,
    import_,
    diff,
    croissant,
    verify,
    tag,
    rm,
    gc,
    manifest,
    diagnose,
    figure,
    video,
    view,
    report,
    eval_,
    bench,
):
    cli.add_command(command)


bench.add_command(methods)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    try:
        run(list(sys.argv[1:] if arguments is None else arguments))
    except SystemExit as stop:
        if arguments is None and THREADED & sys.modules.keys():
            # Their threads keep modules alive past their time, of which DuckDB's bindings then print a page. Nothing is open.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(stop.code if isinstance(stop.code, int) else ERROR)
        raise


def run(given: list[str]) -> None:
    """Run the command line and exit. Expected errors are told in one line; a traceback only for bugs or ``--debug``."""
    debug = "--debug" in given
    given = [word for word in given if word != "--debug"]
    warnings.filterwarnings("default" if debug else "ignore")
    try:
        with interruptible():
            code = cli.main(args=given, prog_name="featstore", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted: what was sealed is kept; the same command goes on from there", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(ERROR)
    except Exception as error:
        if debug:
            raise
        click.echo(f"error: {describe(error)}", err=True)
        sys.exit(ERROR)
    sys.exit(code if isinstance(code, int) else DONE)


def describe(error: Exception) -> str:
    """Return one line for an error: its own for those meant for people, with a hint for bugs."""
    if isinstance(error, (FeatstoreError, OSError)) or is_dvt(error):
        return " ".join(str(error).split())
    return f"{type(error).__name__}: {' '.join(str(error).split())} (this is a bug; --debug shows where)"


def is_dvt(error: Exception) -> bool:
    """Whether dvt raised it on purpose; dvt itself, and torch with it, may never have been imported."""
    module = sys.modules.get("dvt.errors")
    return module is not None and isinstance(error, module.DvtError)
