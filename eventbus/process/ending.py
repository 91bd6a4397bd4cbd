"""How a consumer comes to its end, and what that says of the handlers that are cancelled for it.

    drained    it was asked to stop: handlers have their grace, what they do not finish in it is given back
    cancelled  the task that runs it was: by a task group, a server's lifespan, the end of asyncio.run. Nothing begins,
               handlers are cancelled at once, their events given back and settled, all in a second or two
    at once    it was cancelled a second time: nothing is waited for

Whoever has his task cancelled may make anything of it: a handler whose cleanup fails raises that failure. While one of
these holds, what a cancelled handler raises is no failure of its event's.
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

        It may be asked by a handler that was cancelled together with the consumer, and has its turn before it. Without
        a consumer it can only have been cancelled by whoever runs it."""
        if self._runner is None or self._runner.cancelling():
            return "the worker was cancelled"
        return "the worker is stopping and its grace is over" if self._over else None


async def cancel_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Returns when they have ended."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
