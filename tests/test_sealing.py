"""What a kill or a full disk leaves of a shard, and what the next build sweeps."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from featstore.errors import StoreError
from featstore.sealing import discard, publish, storing, sweep, temporary_for, write_bytes
from featstore.shard import ShardHeader, ShardWriter, read_contents

WRITER = """
import os, resource, signal, sys
from pathlib import Path
import numpy as np
from featstore.errors import StoreError
from featstore.shard import ShardHeader, ShardWriter

path, how = Path(sys.argv[1]), sys.argv[2]
header = ShardHeader("d", "b", "0" * 64, "{}", ("raw",), (4, 5), 64, 0, "{}")
if how == "full":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    with ShardWriter(path, header, 8) as shard:
        for row in range(8):
            shard.add(str(row), f"{row}" * 64, {"raw": np.full((4, 5, 64), row, np.float16)}, None, {})
            if how == "kill" and row == int(sys.argv[3]):
                os.kill(os.getpid(), signal.SIGKILL)
        shard.seal()
except StoreError as error:
    print(error)
"""


def write(path: Path, how: str, number: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WRITER, str(path), how, str(number)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("row", [0, 7])
def test_a_killed_writer_leaves_no_shard_and_its_leftover_is_swept(tmp_path: Path, row: int) -> None:
    path = tmp_path / "shard-00000.h5"
    assert write(path, "kill", row).returncode == -signal.SIGKILL
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith(".tmp-")
    assert sweep(tmp_path) == [leftover]
    assert write(path, "whole").returncode == 0
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert len(read_contents(path).image_ids) == 8


def test_a_shard_that_is_sealed_is_never_replaced(tmp_path: Path) -> None:
    """A worker that was taken for dead comes back when another has made its shard."""
    path = tmp_path / "shard-00000.h5"
    header = ShardHeader("d", "b", "0" * 64, "{}", ("raw",), (2, 2), 3, 0, "{}")
    with ShardWriter(path, header, 1) as late, ShardWriter(path, header, 1) as first:
        for number, shard in enumerate((late, first)):
            shard.add("one", "1" * 64, {"raw": np.full((2, 2, 3), number, np.float16)}, None, {})
        sealed = first.seal()
        before = path.read_bytes()
        assert late.seal().digest == sealed.digest
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("size", [100, 4000, 15_000, 21_000])
def test_a_disk_that_is_full_is_told_in_one_line_and_leaves_nothing(tmp_path: Path, size: int) -> None:
    """Limits of a file's size stand for the disk: beginning, between samples and, past the last one, in the tables."""
    ended = write(tmp_path / "shard-00000.h5", "full", size)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"cannot write {tmp_path}/shard-00000.h5: File too large; make room")
    assert ended.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    ended = write(tmp_path / "file" / "shard-00000.h5", "whole")
    assert "Not a directory" in ended.stdout or "File exists" in ended.stdout


def test_sweep_tells_leftovers_from_work_in_hand(tmp_path: Path) -> None:
    mine = temporary_for(tmp_path / "a")
    mine.write_bytes(b"now")
    before = tmp_path / f".tmp-{socket.gethostname()}-{os.getpid()}-00000000"  # an earlier process of this number
    elsewhere = tmp_path / ".tmp-another-host-7-00000000"
    foreign = tmp_path / ".tmp-notes"
    for path in (before, elsewhere, foreign):
        path.write_bytes(b"then")
    assert sweep(tmp_path) == [before]
    publish(mine, tmp_path / "a")
    assert sorted(tmp_path.iterdir()) == sorted([elsewhere, foreign, tmp_path / "a"])
    assert (tmp_path / "a").read_bytes() == b"now"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are told by /proc")
def test_a_process_that_ended_unasked_is_not_writing(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        leftover = tmp_path / f".tmp-{socket.gethostname()}-{process.pid}-00000000"
        leftover.write_bytes(b"then")
        assert sweep(tmp_path) == [leftover]


def test_what_was_discarded_gives_its_space_back_though_someone_holds_it_open(tmp_path: Path) -> None:
    temporary = temporary_for(tmp_path / "a")
    temporary.write_bytes(b"x" * 1000)
    with temporary.open("rb") as held:
        discard(temporary)
        assert os.fstat(held.fileno()).st_size == 0
    discard(temporary)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"old")
    write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 1


def test_storing_leaves_other_errors_alone(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No space left on device; make room"), storing(tmp_path / "a"):
        raise OSError(28, "No space left on device")
    with pytest.raises(ZeroDivisionError), storing(tmp_path / "a"):
        raise ZeroDivisionError
