"""A query for callers that have no transaction: bounded in time, whatever PostgreSQL does."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from eventbus import Connection, EventBus, Unavailable
from handlers.common.deadline import within

TIMEOUT = 5.0  # seconds

T = TypeVar("T")


async def look(bus: EventBus, ask: Callable[[Connection], Awaitable[T]]) -> T:
    """Return or raise what `ask` does, in a transaction. Raises Unavailable if there is no answer within TIMEOUT."""
    try:
        return await within(TIMEOUT, _ask(bus, ask))
    except TimeoutError:
        raise Unavailable("PostgreSQL", f"no answer for {TIMEOUT:g} s") from None


async def _ask(bus: EventBus, ask: Callable[[Connection], Awaitable[T]]) -> T:
    async with bus.transaction() as tx:
        return await ask(tx.connection)
