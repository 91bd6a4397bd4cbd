"""`python -m tests.stalls [ARGS of pytest]`: tests whose processes are stopped for a moment, again and again.

A machine that has others to serve takes the processor away where nobody expects it: between two lines of a test. A test
that hopes to be quicker than a due time, a lease, a poll fails once in a thousand runs there, and here in one of a few.
Only the processes that run tests are stopped, so servers and workers go on meanwhile, as they would.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

RUNNERS = 8
LONGEST, BETWEEN = 0.6, 1.2  # seconds that one is stopped, and that it runs until the next time, at most


def main(arguments: list[str]) -> int:
    command = [sys.executable, "-m", "pytest", "-n", str(RUNNERS), "--dist", "worksteal", *arguments]
    with subprocess.Popen(command) as tests:
        turns: dict[int, float] = {}
        stopped: set[int] = set()
        while tests.poll() is None:
            for pid in children(tests.pid):
                if time.monotonic() < turns.setdefault(pid, time.monotonic() + random.uniform(0, BETWEEN)):
                    continue
                going_on = pid in stopped
                os.kill(pid, signal.SIGCONT if going_on else signal.SIGSTOP)
                turns[pid] = time.monotonic() + random.uniform(0, BETWEEN if going_on else LONGEST)
                stopped ^= {pid}
            time.sleep(0.01)
        return tests.returncode


def children(pid: int) -> Iterator[int]:
    """The runners; none is left where the parent has just ended."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        yield from map(int, path.read_text().split())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
