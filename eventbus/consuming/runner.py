"""Running deliveries: up to a limit at a time, in no more tasks than are needed.

When a handler never waits, a task for it alone is a sixth of the event's cost. So one task runs what is ready, one
delivery after the other. As soon as one of them waits, more tasks begin, as many as there are slots: by then it is
known that they are needed. Which deliveries run side by side, and in which order they begin, is as if each had its own.

Each delivery has a context of its own: what a handler leaves in a contextvar reaches no other event. What it stores by
`asyncio.current_task()` may reach others, unless the group asks for a task for each: see `stretch`.

A program may have set a task factory whose tasks begin at once, inside of create_task. So a task is noted before it is
made; and a launch that is asked for during another launch is done after it.
"""

import asyncio
import types
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Generator
from contextvars import copy_context
from time import perf_counter
from typing import Any

from eventbus.contract.delivery import Delivery, Outcome, Release
from eventbus.process.loop import begin

STRETCH = 0.005  # seconds that handlers which never wait may keep the loop; then everything else has a turn

Execute = Callable[[Delivery], Coroutine[Any, Any, Outcome]]


class Runners:
    """Put deliveries into `ready` and call `start`.

    limit    how many may run at a time
    execute  runs one, and always returns its outcome
    ended    is told at once of each delivery that ends while it is in `running`, and takes it out of `aside`
    turn     is called before the event loop has its next turn, when some have ended or one begins to wait
    aside    those of `running` that take no place: see eventbus.consuming.slow_lane
    stretch  seconds that one task may go on with what is ready; below 0: a task for each delivery. None: STRETCH

    `running`: deliveries that have begun, and their tasks: to cancel such a task is to cancel that delivery alone.
    Whoever takes a delivery out must settle its outcome. Nothing begins unless `open`. `launched`: tasks not yet begun.
    """

    def __init__(
        self,
        limit: int,
        execute: Execute,
        ended: Callable[[Delivery, Outcome], None],
        turn: Callable[[], None],
        aside: Collection[Delivery] = (),
        *,
        stretch: float | None = None,
    ) -> None:
        self.open = True
        self.ready: deque[Delivery] = deque()
        self.running: dict[Delivery, asyncio.Task[None]] = {}
        self._limit = limit
        self._execute = execute
        self._ended = ended
        self._turn = turn
        self._aside = aside
        self._stretch = STRETCH if stretch is None else stretch
        self._context = copy_context()
        self._launches: dict[object, asyncio.Task[None] | None] = {}
        self._launching = self._again = False

    @property
    def launched(self) -> set[asyncio.Task[None]]:
        return {task for task in self._launches.values() if task is not None}

    def start(self) -> None:
        """Begin to run what is ready, with one task: it launches others when they are needed."""
        if not self._launches:
            self._launch(1)

    def let_go(self, _task: asyncio.Task[None]) -> None:
        """The task's delivery was taken out of `running`, whether the task ends or not: others may have its place."""
        self.start()

    def _launch(self, most: int) -> None:
        if self._launching:  # asked for by a task that began at once, inside of the launch
            self._again = True
            return
        self._launching, self._again = True, False
        try:
            self._launch_free(most)
            while self._again:
                self._again = False
                self._launch_free(self._limit)
        finally:
            self._launching = False

    def _launch_free(self, most: int) -> None:
        free = min(self._limit - len(self.running) + len(self._aside), len(self.ready)) - len(self._launches)
        if self.open:
            for _ in range(min(most, free)):
                launch = object()
                self._launches[launch] = None
                work = self._work(launch)
                try:
                    task = begin(work, self._context.copy())
                except BaseException:  # the program's task factory
                    self._launches.pop(launch, None)
                    work.close()
                    raise
                if launch in self._launches:
                    self._launches[launch] = task

    async def _work(self, launch: object) -> None:
        del self._launches[launch]
        task = asyncio.current_task()
        assert task is not None
        await self._run_ready(task)
        if self._launching:  # started here, what is ready would keep the loop until nothing is left
            asyncio.get_running_loop().call_soon(self.start)
        else:
            self.start()
        self._turn()

    @types.coroutine
    def _run_ready(self, task: asyncio.Task[None]) -> Generator[Any, Any, None]:
        """Ends when there is nothing to begin, the stretch is over, or the task was cancelled, which was meant for the
        delivery that it ran then."""
        ready, running, aside, context = self.ready, self.running, self._aside, self._context
        stretch = self._stretch
        until = perf_counter() + stretch
        while self.open and ready and len(running) - len(aside) < self._limit:
            delivery = ready.popleft()
            running[delivery] = task
            execution = self._execute(delivery)
            run, step, argument, waits = context.copy().run, execution.send, None, False
            outcome: Outcome = Release()
            try:  # as `await execution` does, in a context of its own
                while True:
                    awaited = run(step, argument)
                    if not waits:
                        waits = True
                        self._make_way()
                    try:
                        argument, step = (yield awaited), execution.send
                    except BaseException as error:  # noqa: BLE001 - cancelled, or closed: passed on to the execution
                        argument, step = error, execution.throw
            except StopIteration as end:
                outcome = end.value
            finally:
                if running.pop(delivery, None) is not None:  # else whoever took it out has ended it
                    self._ended(delivery, outcome)
            now = perf_counter()
            if waits:
                until = now + stretch
            if now > until or task.cancelling():
                return

    def _make_way(self) -> None:
        """A delivery waits: others may run meanwhile."""
        self._launch(self._limit)
        self._turn()
