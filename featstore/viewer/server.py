"""The server: one socket on this machine's loopback, a token, threads."""

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from featstore.errors import InputError
from featstore.manifest import require

from . import PORT
from .application import Application

__all__ = ["Viewer", "listening"]

HOST = "127.0.0.1"
TOKEN = "FEATSTORE_VIEW_TOKEN"
SHORTEST = 16


@dataclass(frozen=True)
class Viewer:
    """A server that listens; ``url`` holds the token."""

    server: BaseWSGIServer
    port: int
    url: str


class Quiet(WSGIRequestHandler):
    """Logs nothing: addresses hold the token."""

    def log(self, type: str, message: str, *given: object) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def listening(root: Path, port: int | None = None) -> Iterator[Viewer]:
    """Listen on 127.0.0.1; ``port`` 0 is any free one, None the usual one or, where that is taken, any.

    ``server.serve_forever()`` answers until it is interrupted. The token is drawn anew, or is ``$FEATSTORE_VIEW_TOKEN``. Raises
    NotInStoreError where there is no store, InputError for a port that is taken and for a short token.
    """
    require(root)
    token = os.environ.get(TOKEN) or secrets.token_urlsafe(24)
    if len(token) < SHORTEST or not token.isascii():
        raise InputError(f"{TOKEN} has to be at least {SHORTEST} ASCII characters that nobody can guess")
    with bound(port) as own:
        application = Application(root, token)
        taken = own.getsockname()[1]
        server = make_server(HOST, taken, application, threaded=True, request_handler=Quiet, fd=own.fileno())
        try:
            yield Viewer(server, taken, f"http://{HOST}:{taken}/?token={token}")
        finally:
            server.server_close()
            application.listings.close()


@contextmanager
def bound(port: int | None) -> Iterator[socket.socket]:
    """Yield a socket that listens on loopback; raises InputError where the port is taken."""
    with socket.socket() as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            own.bind((HOST, PORT if port is None else port))
        except OSError as error:
            if port is not None:
                raise InputError(f"port {port} cannot be had: {error.strerror}; --port 0 takes a free one") from error
            own.bind((HOST, 0))
        own.listen(64)
        yield own
