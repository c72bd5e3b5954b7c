"""An SFTP server on this machine, for one folder: paramiko's own, so that ssh:// is seen to work."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paramiko

__all__ = ["sftp_server"]


class AnyUser(paramiko.ServerInterface):
    """Lets the user ``tester`` with the password in."""

    def __init__(self, password: str) -> None:
        self.password = password

    def check_auth_password(self, username: str, password: str) -> int:
        return paramiko.AUTH_SUCCESSFUL if password == self.password else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED


def answering(do: Any) -> Any:
    """Turn OSErrors into SFTP's codes."""

    def call(*given: Any) -> Any:
        try:
            return do(*given)
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)

    return call


class Files(paramiko.SFTPServerInterface):
    """The real files below "/"."""

    @answering
    def list_folder(self, path: str) -> Any:
        found = []
        for entry in Path(path).iterdir():
            found.append(paramiko.SFTPAttributes.from_stat(entry.stat(), entry.name))
        return found

    @answering
    def stat(self, path: str) -> Any:
        return paramiko.SFTPAttributes.from_stat(os.stat(path))  # noqa: PTH116

    lstat = stat

    @answering
    def open(self, path: str, flags: int, attr: Any) -> Any:
        mode = "rb" if not flags & (os.O_WRONLY | os.O_RDWR) else "r+b" if flags & os.O_RDWR else "wb"
        descriptor = os.open(path, flags, 0o600)
        handle = paramiko.SFTPHandle(flags)
        handle.readfile = handle.writefile = os.fdopen(descriptor, mode)
        return handle

    @answering
    def remove(self, path: str) -> int:
        Path(path).unlink()
        return int(paramiko.SFTP_OK)

    @answering
    def mkdir(self, path: str, attr: Any) -> int:
        Path(path).mkdir()
        return int(paramiko.SFTP_OK)

    @answering
    def posix_rename(self, old: str, new: str) -> int:
        Path(old).replace(new)
        return int(paramiko.SFTP_OK)


@contextmanager
def sftp_server(password: str) -> Iterator[int]:
    """Serve this machine's files to the user ``tester``; yields the port."""
    key = paramiko.RSAKey.generate(2048)
    listening = socket.create_server(("127.0.0.1", 0))
    transports: list[paramiko.Transport] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            transport.add_server_key(key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, Files)
            transport.start_server(server=AnyUser(password))
            transports.append(transport)

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.close()
        for transport in transports:
            transport.close()
