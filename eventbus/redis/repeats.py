"""Appending what may be there already, because the reply to a first try was lost.

To look through the newest entries of a busy stream keeps the server for up to a tenth of a second, for however few
events. After an outage all publishers repeat at once: those that come while a look is under way share the next one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from eventbus.transport import Outgoing

BATCH = 500  # events a look: Lua unpacks at most some 8,000 values, and must not take too long

Lane = tuple[str, int]  # stream and priority
Look = Callable[[Lane, list[Outgoing]], Awaitable[list[int]]]


class Repeats:
    """`look(lane, outgoing)` appends what is missing; for each, ms until it is due, or -1 if it was there."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._waiting: dict[Lane, list[tuple[Outgoing, asyncio.Future[int]]]] = {}
        self._looking: dict[Lane, asyncio.Task[None]] = {}

    async def append(self, outgoing: Sequence[Outgoing]) -> list[int]:
        """What the look tells of each. Raises what the look raises."""
        futures: list[asyncio.Future[int]] = []
        for item in outgoing:
            lane = (item.envelope.stream, item.envelope.priority)
            future = asyncio.get_running_loop().create_future()
            futures.append(future)
            self._waiting.setdefault(lane, []).append((item, future))
            if lane not in self._looking:
                self._looking[lane] = asyncio.create_task(self._work(lane))
        return await asyncio.gather(*futures)

    async def _work(self, lane: Lane) -> None:
        try:
            while waiting := self._waiting.get(lane):
                batch, self._waiting[lane] = waiting[:BATCH], waiting[BATCH:]
                wanted = [(item, future) for item, future in batch if not future.done()]
                try:
                    waits = await self._look(lane, [item for item, _ in wanted])
                except Exception as error:  # noqa: BLE001 - whatever it is, they must not wait for ever
                    self._fail(wanted + self._waiting.pop(lane), error)
                    return
                for (_, future), wait in zip(wanted, waits, strict=True):
                    if not future.done():
                        future.set_result(wait)
        finally:
            del self._looking[lane]

    @staticmethod
    def _fail(waiting: list[tuple[Outgoing, asyncio.Future[int]]], error: Exception) -> None:
        """All who wait, and not one batch after the other: each might take a timeout."""
        for _, future in waiting:
            if not future.done():
                future.set_exception(error)
