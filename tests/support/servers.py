"""Servers on this machine, S3 (moto) and HTTP with ranges: they note what they are asked, and can fail."""

import http.server
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from moto.server import ThreadedMotoServer


class Asked(NamedTuple):
    method: str
    path: str
    range: str
    status: int
    sent: int


@dataclass
class Log:
    """What was asked since ``clear``, and what is to go wrong: ``trouble`` gets (method, path) and names a failure or ''."""

    asked: list[Asked] = field(default_factory=list)
    trouble: Callable[[str, str], str] = lambda method, path: ""

    def clear(self) -> None:
        self.asked.clear()

    def of(self, method: str, ending: str = "") -> list[Asked]:
        return [one for one in self.asked if one.method == method and one.path.endswith(ending)]

    def sent(self, ending: str = "") -> int:
        return sum(one.sent for one in self.of("GET", ending))


class Noting:
    """A WSGI application that notes what goes through another, or breaks it: "503", "cut" (half the body) or "drop"."""

    def __init__(self, application: Any, log: Log) -> None:
        self.application, self.log = application, log
        self.turn = threading.Lock()  # S3 decides conditional writes one after the other; moto looks first, then writes

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        trouble = self.log.trouble(method, path)
        if trouble == "503":
            start("503 Service Unavailable", [("Content-Length", "0")])
            return [b""]
        if trouble == "drop":
            environ["werkzeug.socket"].close()
            return [b""]
        told: list[Any] = []
        with self.turn:
            body = b"".join(self.application(environ, lambda *given: told.extend(given)))
        status, headers = told[0], told[1]
        self.log.asked.append(Asked(method, path, environ.get("HTTP_RANGE", ""), int(status[:3]), len(body)))
        start(status, headers)
        return [body[: len(body) // 2]] if trouble == "cut" and method == "GET" else [body]


class S3(ThreadedMotoServer):
    """An S3 server; ``url`` is its endpoint."""

    def __init__(self, log: Log) -> None:
        super().__init__("127.0.0.1", 0, verbose=False)
        self.log = log

    def __enter__(self) -> "S3":
        self.start()
        assert self._server is not None
        self._server.app = Noting(self._server.app, self.log)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        assert self._server is not None
        self._server.server_close()

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self.get_host_and_port())


@contextmanager
def http_server(folder: Path, log: Log, ranges: bool = True) -> Iterator[str]:
    """Serve a folder with listings, as ``python -m http.server`` does, and parts of files where ``ranges``; yields its URL."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given, directory=str(folder))

        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            match = re.fullmatch(r"bytes=(\d+)-(\d+)", asked) if ranges else None
            path = Path(self.translate_path(self.path))
            if match is None or not path.is_file():
                self.note(200, path.stat().st_size if path.is_file() else 0)
                return super().do_GET()
            data = path.read_bytes()[int(match[1]) : int(match[2]) + 1]
            self.note(206, len(data))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {match[1]}-{int(match[1]) + len(data) - 1}/{path.stat().st_size}")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            return None

        def note(self, status: int, size: int) -> None:
            log.asked.append(Asked(self.command, self.path, self.headers.get("Range", ""), status, size))

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
