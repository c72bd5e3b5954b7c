"""The hub, played by a server on this machine: weights are fetched once, then taken from the cache."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load, save

NAME = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
SCRIPT = f"""
import json, dvt
backbone = dvt.Backbone.create({NAME!r}, input_size=(32, 32), device="cpu")
print(json.dumps([backbone.weights_source, backbone.weights_digest]))
"""


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str], bytes]]:
    """Serve the weights of one model as the hub does; yields its address, the requests seen, and the file."""
    torch.manual_seed(7)
    data = save(timm.create_model(NAME, pretrained=False).state_dict())
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self, body: bool) -> None:
            seen.append(f"{self.command} {self.path}")
            found = self.path in ("/", f"/timm/{NAME}/resolve/main/model.safetensors")
            self.send_response(200 if found else 404)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(data) if found else 0))
            self.end_headers()
            if body and found:
                self.wfile.write(data)

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", seen, data
    server.shutdown()
    server.server_close()


def create(home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith("HF_") and "proxy" not in name.lower()
    }
    settings = clean | {"HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"} | environment
    return subprocess.run([sys.executable, "-c", SCRIPT], env=settings, capture_output=True, text=True, check=False)


def test_weights_are_fetched_once_and_then_taken_from_the_cache(
    hub: tuple[str, list[str], bytes], tmp_path: Path
) -> None:
    address, seen, data = hub
    first = create(tmp_path, HF_ENDPOINT=address)
    assert first.returncode == 0, first.stderr
    source, digest = json.loads(first.stdout.splitlines()[-1])
    assert source == f"hub:{NAME}"
    assert any(line.startswith("GET") and line.endswith("model.safetensors") for line in seen)
    expected = hashlib.sha256()
    for name, value in sorted(load(data).items()):
        if name.startswith("head."):
            continue
        expected.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode() + value.numpy().tobytes())
    assert digest == expected.hexdigest()

    count = len(seen)
    offline = create(tmp_path, HF_ENDPOINT=address, HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    assert json.loads(offline.stdout.splitlines()[-1]) == [source, digest]
    assert len(seen) == count


def test_a_hub_without_the_model_is_told_in_one_line(hub: tuple[str, list[str], bytes], tmp_path: Path) -> None:
    script = SCRIPT.replace(NAME, "vit_tiny_patch16_224.augreg_in21k")
    address, _, _ = hub
    settings = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    settings |= {"HF_HOME": str(tmp_path), "HF_ENDPOINT": address}
    failed = subprocess.run([sys.executable, "-c", script], env=settings, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "HubError: the weights of vit_tiny_patch16_224.augreg_in21k cannot be fetched" in failed.stderr
    assert "--weights FILE" in failed.stderr.splitlines()[-1]
