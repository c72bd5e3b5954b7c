"""Builds in processes that are killed at random moments: forked, so that a kill costs no start of Python.

``crasher.py ROOT SEED KILLS LONGEST [verify]`` prints ``kills``, ``finished`` and the numbers of damaged findings after them.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from fakes import FakeDecomposer

from featstore.build import build_version
from featstore.plan import Request
from featstore.verify import verify_store

REQUEST = Request("pets", "fake", shard_size=3)


def forked(root: Path, scale: float) -> int:
    """Start a build in a child; returns its number."""
    child = os.fork()
    if child:
        return child
    try:
        build_version(root, REQUEST, FakeDecomposer(scale, pause=0.01))
    except BaseException as error:
        print("error", type(error).__name__, error, flush=True)
        os._exit(1)
    os._exit(0)


def main() -> None:
    """Kill until it has been done often enough; a build that finishes is followed by one of another recipe."""
    root, generator, wanted, longest = Path(sys.argv[1]), random.Random(int(sys.argv[2])), int(sys.argv[3]), sys.argv[4]
    kills = finished = damage = 0
    while kills < wanted:
        child = forked(root, 1.0 + finished)
        time.sleep(generator.uniform(0, float(longest)))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            kills += 1
            if "verify" in sys.argv[5:]:
                damage += len(verify_store(root).damage)
        else:
            finished += 1
    for number in range(finished + 1):
        _, status = os.waitpid(forked(root, 1.0 + number), 0)
        if status:
            sys.exit(f"the build that nobody disturbed ended with {status}")
    print("kills", kills, "finished", finished, "damage", damage, flush=True)


if __name__ == "__main__":
    main()
