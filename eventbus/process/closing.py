"""When a bus is closed while workers use it, they are cancelled, and it waits while they give back what runs."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from eventbus.errors import ConfigurationError
from eventbus.process.safe_logging import get_logger

GRACE = 5.0  # seconds that they have; a worker that is cancelled takes two

log = get_logger("eventbus")


class Closing:
    """Of one bus."""

    def __init__(self) -> None:
        self.begun = False
        self._users: dict[asyncio.Task[Any], bool] = {}  # and whether they were cancelled from here
        self._unused = asyncio.Event()

    @contextmanager
    def using(self) -> Iterator[None]:
        """Around what the current task does with the bus. Raises ConfigurationError if it was closed meanwhile."""
        task = asyncio.current_task()
        assert task is not None, "a worker runs in a task"
        self._users[task] = False
        try:
            yield
        except asyncio.CancelledError:
            if self._users[task] and not task.uncancel():
                raise ConfigurationError("the bus was closed while its worker ran: stop the worker first") from None
            raise
        finally:
            del self._users[task]
            if not self._users:
                self._unused.set()

    async def begin(self) -> None:
        """Cancel the users of the bus. Returns when none is left, or when GRACE is over."""
        self.begun = True
        self._unused.clear()
        for task in self._users:
            if task is asyncio.current_task():
                continue
            if not task.cancelling():  # a second time would mean to end at once
                self._users[task] = True
                task.cancel()
        if others := [task for task in self._users if task is not asyncio.current_task()]:
            log.warning("the bus is closed while workers run: they end first", workers=len(others))
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE):
                    await self._unused.wait()
