"""The hub, played by a server on this machine, and processes that ask it."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """Serve files, by their place as ``owner/name/path``, as the hub does; yields its address and the requests seen."""
    seen: list[str] = []
    places = {f"/{'/'.join(name.split('/')[:2])}/resolve/main/{name.split('/', 2)[2]}": name for name in files}

    class Handler(BaseHTTPRequestHandler):
        def answer(self, body: bool) -> None:
            seen.append(f"{self.command} {self.path}")
            data = files[places[self.path]] if self.path in places else b""
            known = bool(data) or self.path == "/"
            self.send_response(200 if known else 404)
            if not known:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()


def ask(script: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, with the hub's cache under ``home`` and no settings but these."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith("HF_") and "proxy" not in name.lower()
    }
    settings = clean | {"HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"} | environment
    return subprocess.run([sys.executable, "-c", script], env=settings, capture_output=True, text=True, check=False)
