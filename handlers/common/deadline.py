"""A time limit that holds even when a server is frozen and cancelling the work takes long."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_left_behind: set[asyncio.Task[Any]] = set()


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Return or raise what `work` does; raise TimeoutError if it takes longer.

    `asyncio.timeout` is not enough: a query that is cancelled waits until PostgreSQL has confirmed it, and so does the
    rollback. So late work is cancelled, and nobody waits for its end."""
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
    """Nobody awaits the task any more: keep asyncio from reporting how it ended."""
    _left_behind.discard(task)
    if not task.cancelled():
        task.exception()
