"""A bus for tests: the transport in memory, worker and consumers as in production, and time as the test wants it.

Nothing runs until the test says so. `drain` and `advance` start a worker, let it do what is due, and move the clock
from one due time to the next instead of waiting; when they return, no task of the bus is left. Real time passes only
inside of handlers: a sleep there is a real one.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from eventbus.bus import EventBus
from eventbus.context import Context
from eventbus.contract.codec import open_event
from eventbus.contract.dead_letters import DeadLetter
from eventbus.contract.delivery import Ack
from eventbus.contract.outgoing import Outgoing
from eventbus.errors import ConfigurationError, EventBusError
from eventbus.event import Event
from eventbus.group import Group
from eventbus.handling.listeners import AnyListener, Finished
from eventbus.handling.middleware import CallNext, Middleware
from eventbus.handling.registry import Registration
from eventbus.operating import control
from eventbus.testing.transport import RecordingTransport
from eventbus.worker import Worker

E = TypeVar("E", bound=Event)


class StillRunning(EventBusError):
    """`drain` or `advance` gave up: a handler hangs, or events make events without end."""


class MemoryBus(EventBus):
    """`bus = MemoryBus(groups)`; publish as on any bus, then `await bus.drain()`.

    groups    whose handlers run; `add` takes more
    database  as in EventBus: a real PostgreSQL, then to be opened with `async with`, as inbox and outbox need it.
              Without one, `ctx.transaction()` raises ConfigurationError: there is no double of PostgreSQL, since it
              would commit what the real one refuses
    middleware, listeners  as in EventBus
    patience  real seconds that `drain` and `advance` wait while handlers run and none ends. A handler that hangs for
              longer runs into the group's timeout: the clock moves on to it
    limit     executions of handlers in one call of `drain` or `advance`
    """

    def __init__(
        self,
        groups: Sequence[Group] = (),
        *,
        database: str | None = None,
        middleware: Sequence[Middleware] = (),
        listeners: Sequence[AnyListener] = (),
        patience: float = 5.0,
        limit: int = 10_000,
    ) -> None:
        self._limits: dict[asyncio.Timeout, float] = {}  # of handlers that run, with the times when they are over
        super().__init__("memory://", database=database, middleware=[self._limit, *middleware], listeners=listeners)
        self.patience = patience
        self.limit = limit
        self.finished: list[Finished] = []  # every execution, in the order in which they ended
        self._groups: list[Group] = []
        self._active: list[Group] = []  # those that are not paused
        self._records = RecordingTransport()
        self._worker: Worker | None = None
        self._until = self._last = 0.0
        self.transport = self._records
        self.add(*groups)

    def add(self, *groups: Group) -> None:
        """Run the handlers of these groups, too. Raises ConfigurationError if two groups share a name."""
        for group in groups:
            if any(known.name == group.name and known is not group for known in self._groups):
                raise ConfigurationError(f"two groups share a name: {group.name}")
            if group not in self._groups:
                self._groups.append(group)

    @property
    def now(self) -> float:
        """Seconds on the bus' clock, which begins at 0."""
        return self._records.now

    async def drain(self) -> None:
        """Run everything: what is due now, and all retries and delayed events, each at its time on the clock.

        Raises StillRunning if a handler hangs, or if there is no end to it: an event that publishes itself anew, or
        retries without limit. `advance` is for those."""
        async with self._working(math.inf):
            while (due := await self._idle()) is not None:
                self._move(due)

    async def advance(self, seconds: float) -> None:
        """Let time pass: run what is due now and what comes due meanwhile, in its order. `advance(0)` is for what is
        due now."""
        if seconds < 0:
            raise ValueError(f"advance({seconds}): time goes forward")
        end = self.now + seconds
        async with self._working(end):
            while (due := await self._idle()) is not None and due <= end:
                self._move(due)
            self._move(max(end, self.now))

    # What happened ----------------------------------------------------------------------------------------------------

    def published(self, event_class: type[E]) -> list[E]:
        """The events of this type that were published, by the test and by handlers, in order; delayed ones from the
        moment of their publishing. What is published in a transaction comes when the worker has relayed it."""
        events = [open_event(item.envelope) for item in self.outgoing(event_class)]
        return [event for event in events if isinstance(event, event_class)]

    def outgoing(self, event_class: type[Event] | None = None) -> list[Outgoing]:
        """What `published` tells of, with all that travels: envelope.subject (the key), .priority, .causation_id, and
        the delay."""
        return [item for item in self._records.appended if _is(item.envelope.type, event_class)]

    def completed(self, event_class: type[E], *, group: Group | None = None) -> list[E]:
        """The events of this type that handlers have completed, in order: once for each group, or only for `group`."""
        done = [
            open_event(finished.envelope)
            for finished in self.finished
            if isinstance(finished.outcome, Ack)
            and finished.envelope is not None
            and (group is None or finished.group == group.name)
        ]
        return [event for event in done if isinstance(event, event_class)]

    def dead(self, event_class: type[Event] | None = None, *, group: Group | None = None) -> list[DeadLetter]:
        """The dead letters, as `eventbus dead list` shows them: of this type, of this group, or all."""
        return [
            letter
            for letter in self._records.letters()
            if (event_class is None or (letter.envelope is not None and _is(letter.envelope.type, event_class)))
            and (group is None or letter.group == group.name)
        ]

    # Running ----------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _working(self, until: float) -> AsyncIterator[None]:
        if self._worker is not None:
            raise ConfigurationError("drain or advance runs already")
        self._worker = worker = Worker(self, self._groups, grace=0.0, listeners=[self.finished.append])
        self._until, self._last = until, len(self.finished) + self.limit
        paused = await control.paused(self.transport)
        self._active = [group for group in self._groups if group.name not in paused]
        running = asyncio.create_task(worker.run(signals=False))
        try:
            yield
        finally:
            await worker.stop()
            self._worker = None
            await running

    def _move(self, to: float) -> None:
        assert self._worker is not None
        self._records.now = to
        self._worker.nudge()
        for limit in [limit for limit, deadline in self._limits.items() if deadline <= to]:
            limit.reschedule(0.0)

    async def _idle(self) -> float | None:
        """Wait until nothing is due and nothing runs. Returns when the next is due, None if nothing ever will be."""
        while True:
            await self._relayed()
            due = self._next_due()
            if due is None or due > self.now:
                return due
            self._move(self.now)  # look at retries that are due: a group full of new events puts that off for a second
            await self._progress()

    async def _relayed(self) -> None:
        """Wait until the outbox is empty."""
        try:
            async with asyncio.timeout(self.patience):
                while self.database is not None and await self.database.unpublished():
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise StillRunning(f"the outbox is not relayed within {self.patience:g} s: does another worker?") from None

    async def _progress(self) -> None:
        """Wait until an execution has ended and is settled, or waits for its rate. One that hangs runs into its
        timeout."""
        self._records.progress.clear()
        try:
            async with asyncio.timeout(self.patience):
                await self._records.progress.wait()
        except TimeoutError:
            deadline = min(self._limits.values(), default=math.inf)
            if deadline > self._until or deadline == math.inf:
                raise StillRunning(f"nothing has ended for {self.patience:g} s: {self._unfinished()}") from None
            self._move(deadline)
        if len(self.finished) >= self._last:
            raise StillRunning(
                f"{self.limit} executions, and no end: does a handler publish its own event, or retry without "
                f"limit? Use advance(seconds), or a higher limit. Waiting: {self._unfinished()}"
            )

    async def _limit(self, event: Event, ctx: Context, call_next: CallNext) -> None:
        """The handler's timeout, on the bus' clock. A batch has its own, in real time; its wait for events does not
        count."""
        [group] = [group for group in self._groups if group.name == ctx.group]
        found = group.handlers[event.event_type]
        seconds = found.timeout if isinstance(found, Registration) else None
        async with asyncio.timeout(None) as limit:
            self._limits[limit] = math.inf if seconds is None else self.now + seconds
            try:
                await call_next(event, ctx)
            finally:
                del self._limits[limit]

    def _next_due(self) -> float | None:
        dues = [self._records.due_at(group.name, group.streams, self._records.held) for group in self._active]
        return min((due for due in dues if due is not None), default=None)

    def _unfinished(self) -> str:
        due = [
            group.name
            for group in self._active
            if (at := self._records.due_at(group.name, group.streams, self._records.held)) is not None
            and at <= self.now
        ]
        return ", ".join(due) or "nothing"


def _is(event_type: str, event_class: type[Event] | None) -> bool:
    return event_class is None or event_type == event_class.event_type
