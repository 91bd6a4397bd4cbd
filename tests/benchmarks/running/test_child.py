"""What becomes of drivers that do not do as they should."""

import os
import sys
from pathlib import Path

import pytest

from benchmarks.contenders.driver import Unsupported
from benchmarks.running.child import DriverFailed, drive
from tests.stopwatch import Stopwatch
from tests.waiting import until


async def perform(program: str, silence: float = 20.0) -> tuple[dict[str, object], list[int]]:
    heard: list[int] = []
    return dict(await drive([sys.executable, "-c", program, "publish"], heard.append, silence)), heard


async def test_progress_is_heard_and_greetings_are_not() -> None:
    program = """
print("Welcome to the library!")
print('{"progress": 3}')
print('[1]')
print('{"events": 5, "seconds": 2.0}')
"""
    assert await perform(program) == ({"events": 5, "seconds": 2.0}, [3])


async def test_unsupported_is_no_failure() -> None:
    with pytest.raises(Unsupported, match="it has no such thing"):
        await perform("""print('{"unsupported": "it has no such thing"}')""")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import sys; sys.exit('out of luck')", "publish: exit code 1: out of luck"),
        ("pass", "publish: it ended without a result: nothing on stderr"),
        ("import os; os.abort()", "publish: exit code -6"),
        ("import sys; print('{\"events\": 1}'); sys.exit(3)", "publish: exit code 3"),
    ],
)
async def test_a_failure_says_what_was_last_said(program: str, words: str) -> None:
    with pytest.raises(DriverFailed, match=words):
        await perform(program)


async def test_a_silent_driver_is_ended_with_everything_it_started(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    program = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({str(noted)!r}, "w").write(str(child.pid))
time.sleep(600)
"""
    began = Stopwatch()
    with pytest.raises(DriverFailed, match="said nothing for 2 s"):
        await perform(program, silence=2.0)
    assert began.seconds < 15
    await until(lambda: not alive(int(noted.read_text())))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
