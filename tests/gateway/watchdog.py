"""How long a request keeps the loop, and with it everybody, from all else."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

LONGEST = 0.1  # seconds, on a machine that counts to a million in UNIT
UNIT = 0.025
TRIES = 5  # what is more work than that is so each time


async def check_brief(request: Callable[[], Awaitable[T]]) -> T:
    """That no turn of the loop is more work than LONGEST while this is answered; the answer. A machine that is slow, or
    has others to serve, takes longer for all: it is measured at the same moment."""
    most = []
    while True:
        answer, work = await worked(request)
        most.append(work)
        if work < LONGEST:
            return answer
        assert len(most) < TRIES, f"the loop stood still for {', '.join(f'{each:.3f}' for each in most)} s"


async def worked(request: Callable[[], Awaitable[T]]) -> tuple[T, float]:
    """The answer, and the most work of one turn of the loop, in seconds of the processor of a machine as above."""
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        began = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            longest = max(longest, now - began)
            began = now

    before = _counted()
    watching = asyncio.create_task(watch())
    try:
        answer = await request()
    finally:
        watching.cancel()
    return answer, longest * UNIT / max(before, _counted())


def _counted() -> float:
    began, total = time.thread_time(), 0
    for number in range(1_000_000):
        total += number
    return time.thread_time() - began
