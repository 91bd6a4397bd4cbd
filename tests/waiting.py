"""Waiting for conditions instead of sleeping for a while."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 90.0  # seconds: what has not come true by then will not, however busy the machine


async def eventually(probe: Callable[[], Awaitable[T]], timeout: float = PATIENCE) -> T:
    """Ask until the answer is true, and return it."""
    async with asyncio.timeout(timeout):
        while not (answer := await probe()):
            await asyncio.sleep(0.005)
        return answer


async def until(condition: Callable[[], object], timeout: float = PATIENCE) -> None:
    """Wait until a plain condition holds."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.001)


async def in_a_span(check: Callable[[float], Awaitable[None]]) -> None:
    """`check` does something within so many seconds. Short ones cost least, and a slow machine gets more; what fails
    with the longest has failed."""
    for seconds in (0.1, 0.6):
        try:
            await check(seconds)
            break
        except Exception:  # noqa: BLE001 - it may have been too slow; if not, it fails below
            continue
    else:
        await check(5.0)
