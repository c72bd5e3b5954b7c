"""``featstore view``."""

import getpass
import os
import socket
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featstore.errors import InputError
from featstore.root import resolve_root
from featstore.viewer import PORT

from . import options
from .printing import emit_json

if TYPE_CHECKING:
    from featstore.viewer.server import Viewer

__all__ = ["view"]


@click.command()
@click.argument("store", required=False, metavar="[ROOT]")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    help=f"Port on 127.0.0.1; 0 takes a free one.  [default: {PORT}, or a free one where that is taken]",
)
@click.option("--open", "browser", is_flag=True, help="Open the page in this machine's browser.")
@click.option("--root", metavar="DIR", help="As ROOT.  [default: $FEATSTORE_ROOT, else ./feature-store]")
@options.as_json
def view(store: str | None, port: int | None, browser: bool, root: str | None, as_json: bool) -> None:
    """Browse the store ROOT in a web browser: images, their features, what each patch is like; Ctrl-C ends it.

    The page shows data sets and versions, images by page or by any SQL condition, and of an image the photograph beside
    two maps, raw and clean, or of two versions. Point at a patch to see how alike every other one is, click to hold it;
    PCA, clusters, norms, artifact and residual are a key away (? lists the keys). The address names what is shown: keep
    it, or send it.

    It answers this machine alone, to whoever has the token in the address, and writes nothing. $FEATSTORE_VIEW_TOKEN
    is a token of your own, with which addresses stay valid. A store on another machine is viewed there, through a tunnel
    from yours: ssh -L 8757:127.0.0.1:8757 MACHINE.

    \b
    Examples:
      featstore view
      featstore view /data/feature-store --port 9000
    """
    from featstore.viewer.server import listening  # the web server's modules, which no other command needs

    if store is not None and root is not None:
        raise click.UsageError("give the store once: ROOT or --root")
    place = resolve_root(store if store is not None else root)
    with listening(place, port) as viewer:
        announce(viewer, place, as_json)
        if browser and not webbrowser.open(viewer.url):
            raise InputError("no browser was found here: open the address yourself, without --open")
        viewer.server.serve_forever()  # comes back at Ctrl-C
        click.echo("stopped", err=True)


def announce(viewer: "Viewer", root: Path, as_json: bool) -> None:
    """Say where the page is, and over SSH how to get there."""
    tunnel = f"ssh -N -L {viewer.port}:127.0.0.1:{viewer.port} {getpass.getuser()}@{socket.gethostname()}"
    if as_json:
        emit_json({"root": str(root), "url": viewer.url, "port": viewer.port, "tunnel": tunnel})
        return
    click.echo(f"{root}\n\n  {viewer.url}\n")
    if "SSH_CONNECTION" in os.environ:
        click.echo(f"From your own machine, first:  {tunnel}\n")
    click.echo("Ctrl-C ends it.")
