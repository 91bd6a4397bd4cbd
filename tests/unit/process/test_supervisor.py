"""How often a process that dies is started again, and what becomes of one that does not end."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from eventbus.process import supervisor
from eventbus.process.supervisor import Supervisor
from tests.waiting import PATIENCE, until

STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(f"{sys.argv[1]}/{os.getpid()}", "w").close()
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE", 0.08)
    monkeypatch.setattr(supervisor, "MARGIN", 0.2)


async def test_a_process_that_dies_young_rests_longer_each_time() -> None:
    with capture_logs() as logs:
        running = asyncio.create_task(Supervisor(["false"], 1, grace=1.0).run())

        def pauses() -> list[str]:
            return [str(line["again"]) for line in logs if line["event"] == "worker died"]

        await until(lambda: len(pauses()) >= 5)
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            assert await running == 1
    assert pauses()[:5] == ["in 0.02 s", "in 0.04 s", "in 0.08 s", "in 0.08 s", "in 0.08 s"]


async def test_who_does_not_drain_is_killed_and_told_of(tmp_path: Path) -> None:
    with capture_logs() as logs:
        command = [sys.executable, "-c", STUBBORN, str(tmp_path)]
        running = asyncio.create_task(Supervisor(command, 2, grace=0.1).run())
        await until(lambda: len(list(tmp_path.iterdir())) == 2)
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            assert await running == 1
    assert len([line for line in logs if line["event"] == "killed: it did not drain"]) == 2
