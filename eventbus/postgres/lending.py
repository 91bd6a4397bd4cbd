"""Who has connections of a pool, and what is said when all of them are in use."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import asyncpg

from eventbus.errors import ConfigurationError, PoolExhausted
from eventbus.process.safe_logging import get_logger

TELL_EVERY = 60.0  # seconds

log = get_logger("eventbus.postgres")

_ADVICE = "hold them for a shorter time, or raise EVENTBUS_DATABASE_POOL"

# What is held in this context, and by which task. The children of a task have a copy, and hold nothing themselves.
_HELD: "ContextVar[tuple[tuple[Lending, asyncio.Task[object] | None], ...]]" = ContextVar("_HELD", default=())


class Lending:
    """`size`: how many connections the pool may have."""

    def __init__(self, server: str, size: int) -> None:
        self._server = server
        self._size = size
        self._told: float | None = None

    @contextmanager
    def lent(self) -> Iterator[None]:
        """The current task has a connection inside of the block."""
        before = _HELD.get()
        _HELD.set((*before, (self, _task())))
        try:
            yield
        finally:
            _HELD.set(before)

    def check(self, pool: asyncpg.Pool) -> None:
        """Raises at once if the current task would wait for what it holds itself: ConfigurationError if it holds all
        there is, PoolExhausted if others hold the rest."""
        held = self._count()
        if not held or not self.is_exhausted(pool):
            return
        if held >= self._size:
            raise ConfigurationError(
                f"this task asks for another connection inside of {held} transactions or connections that it has open, "
                f"and the pool has {self._size}: use the open one (tx.connection), or raise EVENTBUS_DATABASE_POOL"
            )
        raise self.exhausted("the task that asks holds one already, and waiting inside of it could last for ever")

    def is_exhausted(self, pool: asyncpg.Pool) -> bool:
        return pool.get_size() >= self._size and pool.get_idle_size() == 0

    def exhausted(self, detail: str) -> PoolExhausted:
        """What to raise; and now and then a line of the log."""
        reason = f"no connection in time: all {self._size} of this process to {self._server} are in use, {detail}"
        now = time.monotonic()
        if self._told is None or now - self._told > TELL_EVERY:
            self._told = now
            log.warning("the pool of connections to postgresql is exhausted", reason=reason, mend=_ADVICE)
        return PoolExhausted(self._server, f"{reason}: {_ADVICE}")

    def _count(self) -> int:
        """Connections that the current task holds."""
        task = _task()
        return sum(lending is self and holder is task for lending, holder in _HELD.get())


def _task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
