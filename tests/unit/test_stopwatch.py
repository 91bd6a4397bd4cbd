"""What tests measure time with: it blames the machine for what the machine does, and the code for all else."""

import os
import subprocess
import sys
import time

from tests.stopwatch import Stopwatch
from tests.waiting import PATIENCE

HOGS = 4
COMPUTE = "while True: sum(range(100_000))"


def test_what_waits_is_to_be_blamed() -> None:
    with Stopwatch() as watch:
        time.sleep(0.3)
    assert watch.passed >= 0.3
    assert watch.seconds == max(0.0, watch.passed - watch.kept_waiting)
    passed = watch.passed
    time.sleep(0.01)
    assert watch.passed == passed, "it has been stopped"


def test_a_thread_that_sleeps_does_not_wait_for_a_processor() -> None:
    """Unless somebody else has it: so it is tried until nobody has."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with Stopwatch() as watch:
            time.sleep(0.1)
        if watch.kept_waiting < 0.05:
            return
        assert time.monotonic() < deadline, watch.kept_waiting


def test_who_must_share_a_processor_is_not_to_be_blamed() -> None:
    """On one processor, with others who compute: most of the time that passes is theirs."""
    mine = os.sched_getaffinity(0)
    processor = {next(iter(mine))}
    # Their parent ends at once: what they wait for is not counted as ours.
    start = (
        "import subprocess, sys\n"
        f"for _ in range({HOGS}):\n"
        f"    print(subprocess.Popen([sys.executable, '-c', {COMPUTE!r}], stdout=subprocess.DEVNULL).pid)"
    )
    os.sched_setaffinity(0, processor)
    hogs: list[int] = []
    try:
        told = subprocess.run([sys.executable, "-c", start], stdout=subprocess.PIPE, check=True)
        hogs = [int(pid) for pid in told.stdout.split()]
        with Stopwatch() as watch:
            computed = time.thread_time() + 0.2
            while time.thread_time() < computed:
                sum(range(10_000))
    finally:
        for pid in hogs:
            os.kill(pid, 9)
        os.sched_setaffinity(0, mine)
    assert watch.passed > 2 * 0.2, "they had their share"
    assert watch.seconds < watch.passed / 2, (watch.seconds, watch.passed)
