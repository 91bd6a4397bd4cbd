"""How a consumer comes to its end, and what that says of the handlers that are cancelled for it.

    drained    it was asked to stop: handlers have their grace, what they do not finish in it is given back
    cancelled  its task was cancelled: by a task group, a server's lifespan, the end of asyncio.run. Nothing begins,
               handlers are cancelled at once, their events given back and settled, all in a second or two
    at once    its task was cancelled a second time: nothing is waited for

A cancelled handler may raise anything: if its cleanup fails, it raises that failure. While the consumer ends in one of
these ways, what a cancelled handler raises does not count as a failure of its event.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

CANCEL_GRACE = 1.0  # seconds that handlers and reads have to end when the worker is cancelled; as many to be settled


class Ending:
    """Of one consumer; its executor asks it."""

    def __init__(self) -> None:
        self._runner: asyncio.Task[Any] | None = None
        self._over = False

    def begin(self) -> None:
        """The task that runs now is the consumer's."""
        self._runner = asyncio.current_task()

    def grace_is_over(self) -> None:
        """What still runs is cancelled now."""
        self._over = True

    @property
    def reason(self) -> str | None:
        """Why handlers are cancelled; None while nothing ends.

        A handler that was cancelled together with the consumer may ask before the consumer has its turn. If no consumer
        has begun, only whoever runs the handler can have cancelled it."""
        if self._runner is None or self._runner.cancelling():
            return "the worker was cancelled"
        return "the worker is stopping and its grace is over" if self._over else None


async def cancel_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel these tasks; returns when they have ended."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
