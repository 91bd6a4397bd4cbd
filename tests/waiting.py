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
