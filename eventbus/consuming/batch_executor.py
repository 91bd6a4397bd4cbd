"""Collecting events into batches, and running their handlers.

Every event of a batch is an execution of its own: decoded, inside of its own middleware, judged and settled by itself.
Only where its handler would begin, it joins a batch instead, and goes on with the result that the batch's handler gave
it. So a batch changes neither how an event fails nor who holds it.

A batch is due when it is full, or when its first event has waited for `max_wait`. Then it needs a slot, like any other
handler of the group, and goes on collecting until it has one.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from eventbus.consuming.stubborn_handlers import tell
from eventbus.context import Context, HandlerBus
from eventbus.event import Event
from eventbus.handling.batch import Batch, Item
from eventbus.handling.registry import BatchRegistration
from eventbus.handling.verdict import GivenBack
from eventbus.process.ending import Ending
from eventbus.process.loop import abandon, begin
from eventbus.process.task_deadlines import TaskDeadlines, limit


class Slots:
    """Places for `count` handlers at a time: first come, first served."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._holders: set[asyncio.Task[Any] | None] = set()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Raises GivenBack if it had to wait, and `give_back` was called meanwhile."""
        await self._acquire()
        holder = asyncio.current_task()
        self._holders.add(holder)
        try:
            yield
        finally:
            self.free(holder)

    def free(self, holder: "asyncio.Task[Any] | None") -> None:
        """Free the place of this task, if it has one: its handler has ended, or was given up."""
        if holder in self._holders:
            self._holders.discard(holder)
            self._release()

    def give_back(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(GivenBack())

    async def _acquire(self) -> None:
        if self._free > 0:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._release()  # it had the slot already
            raise

    def _release(self) -> None:
        """The slot goes to whoever waits longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Collector:
    """Batches of one registration."""

    def __init__(
        self,
        bus: HandlerBus,
        registration: BatchRegistration,
        slots: Slots,
        ending: Ending,
        overdue: Callable[[str], None] = lambda _group: None,
    ) -> None:
        self.bus = bus
        self.registration = registration
        self.slots = slots
        self.ending = ending
        # A batch runs in a copy of this, not in an event's context: what one event's middleware set is not for others.
        self.surroundings = contextvars.copy_context()
        self.runs: set[_Run] = set()
        timeout = registration.timeout
        self.deadlines = None if timeout is None else TaskDeadlines(timeout, self._outlived)
        self._overdue = overdue
        self._open: _Run | None = None
        self._suspects: _Run | None = None  # the open batch of suspects

    async def join(self, event: Event, ctx: Context) -> None:
        """Put the event into a batch; return or raise as it ends there. Suspects get batches of their own, which begin
        as soon as all suspects that run together have joined.

        Raises GivenBack if the batch had not begun when `give_back` was called."""
        run = self._opened(ctx.suspect)
        item = Item(event, ctx)
        over = run.add(item)
        full = self.registration.max_size
        if ctx.suspect and ctx.delivery is not None:
            full = min(full, ctx.delivery.together)  # else max_wait: some may be for other handlers
        if run.size >= full:
            self.seal(run)
            run.begin()
        try:
            await over
        except asyncio.CancelledError:
            await run.leave(item)
            if not item.judged:
                raise
        if not item.judged:
            raise GivenBack
        if item.error is not None:
            raise item.error.with_traceback(item.trace)  # one error may be raised for many events, each time anew

    def _opened(self, suspect: bool) -> "_Run":
        if suspect:
            self._suspects = self._suspects or _Run(self)
            return self._suspects
        self._open = self._open or _Run(self)
        return self._open

    def seal(self, run: "_Run") -> None:
        """No event joins this batch any more."""
        if self._open is run:
            self._open = None
        if self._suspects is run:
            self._suspects = None

    def give_back(self) -> None:
        """End batches that have not begun."""
        for run in list(self.runs):
            run.give_back()

    def abandon(self) -> None:
        """Give up handlers that do not end."""
        for run in list(self.runs):
            run.abandon()

    def _outlived(self, task: "asyncio.Task[Any]", seconds: float, last: bool) -> None:
        for run in [run for run in self.runs if run.runs_in(task)]:
            contexts = run.contexts
            tell(contexts[0].group, self.registration.label, [ctx.event_id for ctx in contexts], seconds, last=last)
            if last:
                run.give_up(seconds)
            else:
                self._overdue(contexts[0].group)


class _Run:
    """One batch: collecting, then waiting for a slot, then running, then over."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._members: dict[Item[Event], asyncio.Future[None]] = {}
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(collector.registration.max_wait, self.begin)
        self._task: asyncio.Task[None] | None = None
        self._running = self._left = False  # left: by all of its members
        collector.runs.add(self)

    @property
    def size(self) -> int:
        return len(self._members)

    def add(self, item: Item[Event]) -> asyncio.Future[None]:
        """The future is done when the batch is over; then `item` says what became of it."""
        over = self._members[item] = self._loop.create_future()
        return over

    def begin(self) -> None:
        self._timer.cancel()
        if self._task is None:
            self._task = begin(self._run(), self._collector.surroundings.copy())

    @property
    def contexts(self) -> list[Context]:
        return [item.ctx for item in self._members]

    def runs_in(self, task: "asyncio.Task[Any]") -> bool:
        return self._running and self._task is task

    def give_up(self, seconds: float) -> None:
        """The handler does not end. Events without a result have failed; results that it gives later are ignored."""
        assert self._task is not None, "it has begun"
        for item in self._members:
            item.settle(TimeoutError(f"it went on for {seconds:.0f} s after its time was up, though it was cancelled"))
        self._collector.slots.free(self._task)
        self._end()
        abandon(self._task)

    async def leave(self, item: Item[Event]) -> None:
        """The item's execution was cancelled. Returns when no handler holds the item any more. The handler is cancelled
        when all items have left."""
        if self._running and self._task is not None:
            if not self._task.cancelling() and all(over.done() for over in self._members.values()):
                self._left = True
                self._task.cancel()
            await asyncio.wait([self._task])
            return
        self._members.pop(item, None)
        if not self._members:
            self.give_back()

    def give_back(self) -> None:
        if self._running:
            return
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        self._end()

    def abandon(self) -> None:
        if self._task is not None:
            abandon(self._task)

    async def _run(self) -> None:
        self._task = asyncio.current_task()  # where tasks begin at once, `begin` has not set it yet
        try:
            async with self._collector.slots.one():
                self._running = True
                self._collector.seal(self)
                await self._handle(list(self._members))
        except GivenBack:
            return
        except Exception as error:  # noqa: BLE001 - not the handler's error; if released, they would run endlessly
            for item in self._members:
                item.settle(error)
        finally:
            self._end()

    async def _handle(self, items: list[Item[Event]]) -> None:
        registration = self._collector.registration
        error: BaseException | None = None
        try:
            with limit(self._collector.deadlines):
                await registration.handler(Batch(self._collector.bus, items))
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as raised:  # noqa: BLE001 - whatever it raises is the items' failure, sys.exit() too
            task = asyncio.current_task()
            if task is not None and task.cancelling() and (self._left or self._collector.ending.reason is not None):
                return  # we cancelled it, so its error does not count: items without a result are given back
            error = raised
        for item in items:
            item.settle(error)

    def _end(self) -> None:
        self._collector.seal(self)
        self._collector.runs.discard(self)
        for over in self._members.values():
            if not over.done():
                over.set_result(None)
