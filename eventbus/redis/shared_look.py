"""Repeated appends to one lane share a look.

To look through the newest entries of a busy stream costs the server up to half a second, in pages, for however few
events. After an outage all publishers repeat at once: those that come while a look is under way share the next one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from eventbus.contract.outgoing import Outgoing
from eventbus.errors import EventBusError, Unavailable

BATCH = 2_000  # events a look

Lane = tuple[str, int]  # log and priority
Placed = tuple[str, Outgoing]  # an item, behind the log that it is or will be in
Wait = int | EventBusError  # ms until an event is due, 0 and -1 as the look says: see append_again; or an error
Look = Callable[[Lane, list[Outgoing]], Awaitable[list[Wait]]]


class Repeats:
    """`look(lane, outgoing)` returns one Wait for each item, or raises the error that is to be told of all."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._waiting: dict[Lane, list[tuple[Outgoing, asyncio.Future[Wait]]]] = {}
        self._looking: set[Lane] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def append(self, placed: Sequence[Placed]) -> list[Wait]:
        """What the look tells of each."""
        futures: list[asyncio.Future[Wait]] = []
        for log, item in placed:
            lane = (log, item.envelope.priority)
            future = asyncio.get_running_loop().create_future()
            futures.append(future)
            self._waiting.setdefault(lane, []).append((item, future))
            if lane not in self._looking:
                self._looking.add(lane)
                task = asyncio.create_task(self._work(lane))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        return await asyncio.gather(*futures)

    async def _work(self, lane: Lane) -> None:
        try:
            while waiting := self._waiting.get(lane):
                batch, self._waiting[lane] = waiting[:BATCH], waiting[BATCH:]
                wanted = [(item, future) for item, future in batch if not future.done()]
                waits: list[Wait]
                try:
                    told = await self._look(lane, [item for item, _ in wanted])
                    waits = [wait for wait, _ in zip(told, wanted, strict=True)]
                except Unavailable as error:
                    # It is told to all who wait, and not to one batch after the other: each might take a timeout.
                    wanted += self._waiting.pop(lane)
                    waits = [error] * len(wanted)
                except EventBusError as error:
                    waits = [error] * len(wanted)
                except Exception as error:  # noqa: BLE001 - whatever it is, they must not wait for ever
                    self._fail(wanted + self._waiting.pop(lane), error)
                    return
                for (_, future), wait in zip(wanted, waits, strict=True):
                    if not future.done():
                        future.set_result(wait)
        finally:
            self._looking.discard(lane)

    @staticmethod
    def _fail(waiting: list[tuple[Outgoing, asyncio.Future[Wait]]], error: Exception) -> None:
        for _, future in waiting:
            if not future.done():
                future.set_exception(error)
