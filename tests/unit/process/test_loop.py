"""A program ends, even if one of its tasks does not want to."""

import asyncio
import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from eventbus.process import loop
from tests.stopwatch import Stopwatch


async def stubborn() -> None:
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            continue


def test_a_task_that_swallows_its_cancellation_does_not_keep_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "END_GRACE", 0.1)
    tasks: list[asyncio.Task[None]] = []

    async def main() -> str:
        tasks.append(asyncio.create_task(stubborn()))
        await asyncio.sleep(0)
        return "done"

    began = Stopwatch()
    with capture_logs() as lines:
        assert loop.run(main()) == "done"
    assert began.seconds < 5
    assert tasks[0].done()
    [line] = lines
    assert line["event"] == "a task does not end: abandoned"
    assert "stubborn" in line["task"]


def test_what_ends_in_time_is_no_matter() -> None:
    ended: list[bool] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            ended.append(True)

    async def main() -> None:
        asyncio.create_task(slow())  # noqa: RUF006 - nobody holds it, as in a program that forgot it
        await asyncio.sleep(0)

    with capture_logs() as lines:
        loop.run(main())
    assert (ended, lines) == ([True], [])


def test_a_server_that_is_up_is_not_looked_through_again() -> None:
    program = """
import gc
from eventbus.process import loop
loop.collect_seldom()
assert gc.get_freeze_count() > 1000 and gc.get_threshold()[0] == loop.YOUNG
class Ring: pass
alive = Ring(); alive.ring = alive
import weakref
ring = weakref.ref(alive)
del alive
gc.collect()
assert ring() is None, "what came later is still collected"
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
