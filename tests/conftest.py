"""What every test gets: a home of its own, no store from outside, no network."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # several processes whose threads wait for each other's cores take many times as long
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    from servers import S3, Log

S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "open-sesame",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
SHARED = Path(__file__).parents[2] / "shared"


def is_own(host: str) -> bool:
    """Whether a host is this one: loopback, or the address by which nodes of a Ray cluster here know each other."""
    if host in ("127.0.0.1", "::1", "localhost"):
        return True
    try:
        with socket.socket() as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


@pytest.fixture(autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may touch the user's home, an existing store, or a host that is not this one."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hub")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("FEATSTORE_ROOT", raising=False)
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not is_own(address[0]):
            raise OSError(f"tests have no network: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def shared() -> Path:
    """The folder of real photographs and golden outputs beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("the shared folder with real photographs is not beside this repository")
    return SHARED


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of ten photographs with stage 1 (v1), raw features (v2) and a denoiser (d1), to read or to copy."""
    from tinystore import make_trained

    return make_trained(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="session")
def readable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of fake features in several shards and versions, and of a VOC tree, to read."""
    from readable import make_readable

    return make_readable(tmp_path_factory.mktemp("readable"))


@pytest.fixture(scope="session")
def s3_log() -> "Log":
    """What the S3 server of this session was asked, and what it is to do wrong."""
    from servers import Log

    return Log()


@pytest.fixture(scope="session")
def s3_server(s3_log: "Log") -> "Iterator[S3]":
    """An S3 server on this machine."""
    from servers import S3

    with S3(s3_log) as server:
        yield server


@pytest.fixture
def bucket(s3_server: "S3", s3_log: "Log", monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> "Iterator[str]":
    """The URL of a bucket of one's own, credentials for it in the environment, a cache of one's own."""
    import uuid

    import boto3

    for name, value in S3_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.url)
    monkeypatch.setenv("FEATSTORE_CACHE", str(tmp_path / "cache"))
    name = f"bucket-{uuid.uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=name)
    s3_log.clear()
    yield f"s3://{name}"
    s3_log.trouble = lambda method, path: ""
