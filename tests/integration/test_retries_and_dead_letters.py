"""An event that always fails, from its first attempt to its replay by an operator, through real processes."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise

import pytest

from eventbus import EventBus
from tests.integration.failing import Doomed
from tests.stopwatch import Stopwatch
from tests.waiting import PATIENCE


@pytest.fixture
def environment(redis_url: str) -> dict[str, str]:
    return {**os.environ, "EVENTBUS_REDIS_URL": redis_url}


@pytest.fixture
def worker(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.integration.failing"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.terminate()
        process.communicate(timeout=PATIENCE)  # to the end: it still has something to say when it stops


@pytest.fixture
async def bus(redis_url: str) -> AsyncIterator[EventBus]:
    async with EventBus(redis_url) as bus:
        yield bus


def eventbus(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "eventbus.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)


async def attempts(worker: subprocess.Popen[str], count: int) -> list[float]:
    """The times of the next attempts, as the handler printed them."""
    assert worker.stdout is not None
    times: list[float] = []
    while len(times) < count:
        async with asyncio.timeout(PATIENCE):
            line = await asyncio.to_thread(worker.stdout.readline)
        if line.startswith("attempt"):
            times.append(float(line.split()[2]))
    return times


async def test_attempts_at_0_2_and_6_seconds_then_a_dead_letter_and_a_replay(
    worker: subprocess.Popen[str], bus: EventBus, environment: dict[str, str]
) -> None:
    receipt = await bus.publish(Doomed(name="Phoenix"), key="p-1")
    with Stopwatch() as watch:
        first, second, third = await attempts(worker, 3)
    for wait, (before, after) in zip((2.0, 4.0), pairwise((first, second, third)), strict=True):
        assert wait - 0.01 <= after - before <= wait + 0.3 + watch.kept_waiting

    [letter] = await dead_letters(environment, 1)
    assert (letter["eventId"], letter["group"], letter["attempts"]) == (receipt.id, "trials", 3)
    shown = eventbus(environment, "dead", "show", str(letter["id"]))
    assert "Traceback" in shown.stdout
    assert "Phoenix fails on purpose" in shown.stdout

    replayed = eventbus(environment, "dead", "replay", str(letter["id"]))
    assert (replayed.returncode, replayed.stdout.strip()) == (0, "replayed 1")
    await attempts(worker, 3)
    [again] = await dead_letters(environment, 1)
    assert again["eventId"] == receipt.id, "a replay keeps the event's id, for the inbox' sake"
    assert again["id"] != letter["id"]


async def dead_letters(environment: dict[str, str], count: int) -> list[dict[str, object]]:
    """What `dead list --json` says, once there are so many."""
    async with asyncio.timeout(PATIENCE):
        while True:
            listed = await asyncio.to_thread(eventbus, environment, "dead", "list", "--json")
            items: list[dict[str, object]] = json.loads(listed.stdout)["items"]
            if len(items) == count:
                return items
