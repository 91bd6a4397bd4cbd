"""What tests measure time with: it blames the machine for what the machine does, and the code for all else."""

import os
import subprocess
import sys
import time

from tests.stopwatch import Stopwatch

HOGS = 4
COMPUTE = "while True: sum(range(100_000))"


def test_what_waits_is_to_be_blamed() -> None:
    with Stopwatch() as watch:
        time.sleep(0.5)
    assert watch.passed >= 0.5
    assert watch.seconds >= 0.5 - watch.kept_waiting
    assert watch.kept_waiting < watch.passed, "a thread that sleeps does not wait for a processor"
    passed = watch.passed
    time.sleep(0.01)
    assert watch.passed == passed, "it has been stopped"


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
