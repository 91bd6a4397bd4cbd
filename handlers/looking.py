"""A look into PostgreSQL where there is no transaction: bounded in time, whatever the server does."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from eventbus import Connection, EventBus, Unavailable

TIMEOUT = 5.0  # seconds

T = TypeVar("T")

_left_behind: set[asyncio.Task[Any]] = set()


async def look(bus: EventBus, ask: Callable[[Connection], Awaitable[T]]) -> T:
    """What `ask` returns or raises. Raises Unavailable if there is no answer in time.

    In a task of its own, for a query that is cancelled waits until the server has confirmed that: it is left behind."""
    task = asyncio.create_task(_ask(bus, ask))
    try:
        await asyncio.wait({task}, timeout=TIMEOUT)
    finally:
        if not task.done():
            task.cancel()
            _left_behind.add(task)
            task.add_done_callback(_forget)
    if not task.done():
        raise Unavailable("PostgreSQL", f"no answer for {TIMEOUT:g} s")
    return task.result()


async def _ask(bus: EventBus, ask: Callable[[Connection], Awaitable[T]]) -> T:
    async with bus.transaction() as tx:
        return await ask(tx.connection)


def _forget(task: asyncio.Task[Any]) -> None:
    """Nobody awaits it any more: keep asyncio from reporting how it ended."""
    _left_behind.discard(task)
    if not task.cancelled():
        task.exception()
