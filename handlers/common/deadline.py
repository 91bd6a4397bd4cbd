"""An answer in time, also when a server is frozen and even giving up on it takes long."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_left_behind: set[asyncio.Task[Any]] = set()


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns or raises; TimeoutError if that takes longer.

    `asyncio.timeout` is not enough: a query that is cancelled waits until PostgreSQL has confirmed it, and so does the
    rollback. Work that is late is cancelled and left to its own end."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            _left_behind.add(task)
            task.add_done_callback(_forget)
    if not task.done():
        raise TimeoutError
    return task.result()


def _forget(task: asyncio.Task[Any]) -> None:
    """Nobody awaits it any more: keep asyncio from reporting how it ended."""
    _left_behind.discard(task)
    if not task.cancelled():
        task.exception()
