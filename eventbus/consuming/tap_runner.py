"""Running deliveries of a tap, many at a time; eventbus.consuming.runner does it for handlers of single events.

Deliveries that are ready run together when they fill a batch, or when the first of them has waited long enough. Each
batch has one task, and no work is done for each event.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import repeat

from eventbus.contract.delivery import Delivery, Outcome, Release
from eventbus.handling.registry import Tap

ExecuteAll = Callable[[Sequence[Delivery]], Awaitable[Sequence[Outcome]]]


class Gathering:
    """Used as eventbus.consuming.runner.Runners: put deliveries into `ready` and call `start`.

    limit        batches that may run at a time
    execute_all  runs one batch, and returns an outcome for each of its deliveries
    ended        is told of each delivery that was in `running` until its batch ended
    turn         is called when a batch has ended

    `running`: deliveries that have begun, and the task that runs each together with the others of its batch."""

    def __init__(
        self,
        tap: Tap,
        limit: int,
        execute_all: ExecuteAll,
        ended: Callable[[Delivery, Outcome], None],
        turn: Callable[[], None],
    ) -> None:
        self.open = True
        self.ready: deque[Delivery] = deque()
        self.running: dict[Delivery, asyncio.Task[None]] = {}
        self._launches: dict[object, asyncio.Task[None] | None] = {}
        self._tap = tap
        self._limit = limit
        self._execute_all = execute_all
        self._ended = ended
        self._turn = turn
        self._batches = 0  # launched and not over
        self._begun: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def launched(self) -> set[asyncio.Task[None]]:
        """Tasks that have not begun."""
        return {task for task in self._launches.values() if task is not None}

    def let_go(self, task: "asyncio.Task[None]") -> None:
        """The task's batch was given up, whether the task ends or not: another batch may have its place."""
        self._free(task)
        self._launch()

    def _free(self, task: "asyncio.Task[None]") -> None:
        if task in self._begun:
            self._begun.discard(task)
            self._batches -= 1

    def start(self) -> None:
        """Begin a batch if it is full; otherwise see to it that it begins in time."""
        if not self.ready or not self.open:
            return
        if len(self.ready) >= self._tap.max_size:
            self._launch()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._tap.max_wait, self._launch)

    def _launch(self) -> None:
        """Begin a batch: it is full, or has waited long enough. With every place taken it goes on gathering, and the
        end of a running batch calls this again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.open and self.ready and self._batches < self._limit:
            self._batches += 1
            launch = object()
            self._launches[launch] = None  # before the task is made, which may begin at once: see runner.py
            task = asyncio.create_task(self._work(launch))
            if launch in self._launches:
                self._launches[launch] = task

    async def _work(self, launch: object) -> None:
        del self._launches[launch]
        task = asyncio.current_task()
        assert task is not None
        self._begun.add(task)
        ready = self.ready
        batch = [ready.popleft() for _ in range(min(len(ready), self._tap.max_size))] if self.open else []
        self.running.update(zip(batch, repeat(task)))  # `repeat` is endless, hence not strict
        outcomes: Sequence[Outcome] = [Release()] * len(batch)
        try:
            if batch:
                outcomes = await self._execute_all(batch)
        finally:
            self._free(task)
            running, ended = self.running, self._ended
            for delivery, outcome in zip(batch, outcomes, strict=True):
                if running.pop(delivery, None) is not None:  # else whoever took it out has ended it
                    ended(delivery, outcome)
            # What has gathered meanwhile may have waited for this place. Launched from the loop: where tasks begin at
            # once, each batch would otherwise run inside of the one before it.
            asyncio.get_running_loop().call_soon(self._launch)
            self._turn()
