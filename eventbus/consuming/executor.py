"""From a delivery to an outcome: decode, find the handler, run it, judge how it ended. Knows no transport."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple

from eventbus.consuming.batch_executor import Collector, Slots
from eventbus.consuming.lost_sessions import LostSessions
from eventbus.consuming.stubborn_handlers import Overruns
from eventbus.consuming.undecodable import bury_undecodable
from eventbus.context import Context, HandlerBus
from eventbus.contract.codec import decode, open_event
from eventbus.contract.delivery import Ack, Dead, Delivery, Failure, Outcome, Release, Retry, Snooze
from eventbus.errors import Cancelled, CodecError, Conflict, Unavailable
from eventbus.event import Envelope, Event, event_class
from eventbus.group import Group
from eventbus.handling.listeners import Announcer, AnyListener, Finished
from eventbus.handling.middleware import CallNext, Middleware, compose
from eventbus.handling.registry import AnyRegistration, BatchRegistration
from eventbus.handling.verdict import GivenBack, failure_of, judge, leaves
from eventbus.operating.aborting import Aborting
from eventbus.policy import RetryPolicy
from eventbus.process.ending import Ending
from eventbus.process.safe_logging import get_logger
from eventbus.process.task_deadlines import TaskDeadlines, limit

CONFLICT_PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # seconds, at most, before each new run after a Conflict
_DONE = Ack()

log = get_logger("eventbus.executor")


Count = Callable[[str, Outcome, Envelope | None, float], None]


class _Route(NamedTuple):
    """Where events of one type go. `deadlines` is None if there is no timeout, or if `call` keeps to it by itself."""

    call: CallNext
    deadlines: TaskDeadlines | None
    retry: RetryPolicy


class Executor:
    """Runs the handlers of one group. What is registered on the group later than this is made has no effect.

    aborting    knows which events were aborted, and must not begin
    counts      are told of every execution before any listener: group, outcome, envelope, seconds, as in Finished
    middleware  runs outside of the group's own
    listeners   are told before the group's own
    overdue     is told the group of each handler that goes on for long after its time was up
    """

    def __init__(
        self,
        group: Group,
        bus: HandlerBus,
        *,
        aborting: Aborting | None = None,
        counts: Sequence[Count] = (),
        middleware: Sequence[Middleware] = (),
        listeners: Sequence[AnyListener] = (),
        overdue: Callable[[str], None] = lambda _group: None,
    ) -> None:
        self._group = group
        self._aborting = aborting
        self._counts = tuple(counts)
        self._bus = bus
        self._layers = [*middleware, *group.middleware]
        # Without batches, all deliveries in hand run, and need no slots. With batches, most of them wait in a batch.
        self._slots = Slots(group.concurrency) if group.batches else None
        self._collectors: dict[BatchRegistration, Collector] = {}
        self.ending = Ending()
        self.overdue = overdue
        self.overruns: Overruns | None = None  # set by the consumer
        self._routes = {event_type: self._route(found) for event_type, found in group.handlers.items()}
        told = [*listeners, *group.listeners]
        self._announcer = Announcer(group.name, told) if told else None
        self._abandoned = False
        self._lost = LostSessions()

    async def execute(self, delivery: Delivery) -> Outcome:
        """The outcome: a handler that returns has succeeded, one that raises has failed. This itself raises nothing,
        unless it is cancelled before the handler starts."""
        suspect = delivery.crashes >= delivery.subscription.suspect_from
        if (suspect or delivery.failures) and (condemned := self._condemned(delivery)) is not None:
            return self._conclude(delivery, condemned)
        envelope = None
        try:
            envelope = decode(delivery.fields)
            route = self._find_route(envelope)
            if route is None:
                return _DONE
            event = open_event(envelope)
        except CodecError as error:
            return self._conclude(delivery, bury_undecodable(delivery, error), envelope, error=error)
        context = Context(self._bus, envelope, self._group.name, delivery.attempt, delivery.entry_id, suspect=suspect)
        context.delivery = delivery
        if self._aborting is not None and self._aborting.wanted and (refusal := self._refusal(envelope)) is not None:
            return self._conclude(delivery, self._judge(route, context, refusal), envelope, error=refusal)
        # What follows is done for every event, and all in one coroutine: this is the hot path.
        loop, deadlines, failure, late = asyncio.get_running_loop(), route.deadlines, None, False
        task = asyncio.current_task(loop)
        assert task is not None, "only a task can be told that its time is up"
        started = perf_counter()
        if deadlines is not None:
            deadlines.begin(task, loop, loop.time())
        try:
            try:
                await route.call(event, context)
            except Conflict as conflict:
                await _run_again(route.call, event, context, conflict)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it raises is its failure, sys.exit() too
            failure = error
        finally:
            late = deadlines is not None and deadlines.end(task)
        if failure is None and not late:
            return self._conclude(delivery, _DONE, envelope, started)
        return self._conclude_raised(route, context, failure, task, late=late, started=started)

    def fail(self, delivery: Delivery, error: BaseException) -> Outcome:
        """The outcome of a delivery whose handler did not raise `error`, judged as if it had: other code of the
        application raised it before the handler started, or the handler goes on after its time and is given up."""
        try:
            envelope = decode(delivery.fields)
            route = self._find_route(envelope)
        except CodecError as undecoded:
            return self._conclude(delivery, bury_undecodable(delivery, undecoded), error=undecoded)
        if route is None:
            return _DONE
        context = Context(self._bus, envelope, self._group.name, delivery.attempt, delivery.entry_id)
        return self._conclude(delivery, self._judge(route, context, error), envelope, error=error)

    def give_back(self) -> None:
        """Executions that wait for a slot or for their batch end with Release, now."""
        if self._slots is not None:
            self._slots.give_back()
        for collector in self._collectors.values():
            collector.give_back()

    def abandon(self) -> None:
        """Give up handlers that do not end: whatever they raise from now on, their events are given back.

        This ends handlers of batches. The caller ends all other executions."""
        self._abandoned = True
        for collector in self._collectors.values():
            collector.abandon()

    async def drain(self, seconds: float) -> None:
        """Give listeners that are still at work so long to end, then cancel them."""
        if self._announcer is not None:
            await self._announcer.drain(seconds)

    def _route(self, found: AnyRegistration) -> _Route:
        if isinstance(found, BatchRegistration):
            if found not in self._collectors:
                assert self._slots is not None, "a group with batches has slots"
                self._collectors[found] = Collector(self._bus, found, self._slots, self.ending, self.overdue)
            # Waiting for its batch is not part of an event's timeout: the batch takes the slot, and has the timeout.
            return _Route(compose(self._collectors[found].join, self._layers), None, found.retry)
        call = compose(found.handler, self._layers)
        if self._slots is not None:
            return _Route(_in_slot(self._slots, self._deadlines(found.timeout), call), None, found.retry)
        # No slot: the consumer starts no more of them than may run.
        return _Route(call, self._deadlines(found.timeout), found.retry)

    def _deadlines(self, timeout: float | None) -> TaskDeadlines | None:
        return None if timeout is None else TaskDeadlines(timeout, self._outlived)

    def _outlived(self, task: asyncio.Task[Any], seconds: float, last: bool) -> None:
        if last and self._slots is not None:
            self._slots.free(task)
        if self.overruns is not None:
            self.overruns.outlived(task, seconds, last)

    def _find_route(self, envelope: Envelope) -> _Route | None:
        """None if the event is not for this group. Raises UnknownEventType if no class here has its type."""
        if envelope.only is not None and envelope.only != self._group.name:
            return None
        route = self._routes.get(envelope.type)
        if route is None:
            event_class(envelope.type)
        return route

    def _conclude(
        self,
        delivery: Delivery,
        outcome: Outcome,
        envelope: Envelope | None = None,
        started: float | None = None,
        error: BaseException | None = None,
    ) -> Outcome:
        if error is not None and envelope is not None and self._aborting is not None and isinstance(error, Cancelled):
            self._aborting.ended(self._group.name, envelope.id)
        if self._lost.times and error is None and envelope is not None:
            self._lost.forget(envelope.id)
        seconds = 0.0 if started is None else perf_counter() - started
        try:
            for count in self._counts:
                count(self._group.name, outcome, envelope, seconds)
            if self._announcer is not None:
                self._announcer.tell(Finished(self._group.name, delivery, outcome, envelope, seconds, error, self._bus))
        except Exception:  # the outcome is decided, and stays so even if somebody could not be told
            log.exception("an outcome was not told to all", group=self._group.name, entry_id=delivery.entry_id)
        return outcome

    def _conclude_raised(
        self,
        route: _Route,
        context: Context,
        failure: BaseException | None,
        task: asyncio.Task[object],
        *,
        late: bool,
        started: float,
    ) -> Outcome:
        """The outcome of a handler that raised, or that returned after its time was up."""
        delivery, envelope = context.delivery, context.envelope
        assert delivery is not None, "it is an attempt at one"
        if delivery.given_up:
            return Release()  # it has failed already, and this outcome is ignored
        if failure is None:
            return self._conclude(delivery, _DONE, envelope, started)
        failure = self._lost.meant(envelope.id, _meaning(failure, task, delivery, late=late))
        return self._conclude(delivery, self._judge_raised(route, context, failure, task), envelope, started, failure)

    def _refusal(self, envelope: Envelope) -> Cancelled | None:
        assert self._aborting is not None
        reason = self._aborting.refusal(self._group.name, envelope.id)
        return None if reason is None else Cancelled(reason)

    def _judge_raised(
        self, route: _Route, context: Context, error: BaseException, task: asyncio.Task[object]
    ) -> Outcome:
        # The consumer cancelled it, so its error does not count: it may be one of its cleanup. Aborts were sorted out
        # before.
        if task.cancelling() and (reason := self.ending.reason) is not None:
            context.log.warning("given back", reason=reason, error=repr(error))
            return Release()
        # A CancelledError here is not ours: something that the handler awaited was cancelled, or it cancelled itself.
        return self._judge(route, context, error)

    def _judge(self, route: _Route, context: Context, error: BaseException) -> Outcome:
        outcome = Release() if self._abandoned else judge(error, route.retry, context.attempt)
        try:
            self._tell(context, outcome, error)
        except Exception:  # an error that cannot say what it is
            context.log.exception("an outcome cannot be told", error_type=type(error).__qualname__)
        return outcome

    def _tell(self, context: Context, outcome: Outcome, error: BaseException) -> None:
        match outcome:
            case Retry(delay, failure):
                context.log.warning("failed, will retry", error=failure.error, delay=round(delay, 3))
            case Dead(failure):
                context.log.error("dead letter", reason=failure.error)
            case Snooze(delay) if all(isinstance(each, Unavailable | GivenBack) for each in leaves(error)):
                # The broken connection was logged, once. This line comes for every event, every second.
                context.log.debug("put off", reason=str(error), delay=delay)
            case Snooze(delay):
                age = round(time.time() - context.envelope.time.timestamp(), 3)
                context.log.info("snoozed", reason=failure_of(error).error, delay=delay, age=age)

    def _condemned(self, delivery: Delivery) -> Dead | None:
        """The outcome of what is not run any more, with a line in the log: it has killed too many workers; or it has
        failed as often as it may, and who failed last did not know it, since a worker that had lost its lease told of
        its failure late, or the policy granted more then."""
        crashes, failures, granted = delivery.crashes, delivery.failures, self._granted(delivery)
        if crashes >= delivery.subscription.condemned_from:
            name, budget = "CrashBudget", self._group.crash_budget
            reason = f"its worker died {crashes} times while it ran, {budget} of them while nothing else did"
        elif granted is not None and failures >= granted:
            name, reason = "AttemptsSpent", f"it has failed {failures} times, and {granted} attempts are granted"
        else:
            return None
        log.error("dead letter", **delivery.named(), reason=reason)
        return Dead(Failure(f"{name}: {reason}"), attempts=failures)

    def _granted(self, delivery: Delivery) -> int | None:
        """Attempts that the handler of this event has; None for any number, or if that cannot be read."""
        try:
            route = self._find_route(decode(delivery.fields)) if delivery.failures else None
        except CodecError:  # the one who is to run it finds out
            return None
        return None if route is None else route.retry.attempts


def _in_slot(slots: Slots, deadlines: TaskDeadlines | None, call: CallNext) -> CallNext:
    """In a group with batches, handlers of single events also wait for a slot. The wait is not part of the timeout."""

    async def wait_and_call(event: Event, context: Context) -> None:
        async with slots.one():
            with limit(deadlines):
                await call(event, context)
            if context.delivery is not None and context.delivery.given_up:
                raise GivenBack  # it has failed already

    return wait_and_call


def _meaning(error: BaseException, task: asyncio.Task[object], delivery: Delivery, *, late: bool) -> BaseException:
    """The error that a handler's end counts as: Cancelled if it was aborted, TimeoutError if we cancelled it because
    its time was up, else what it raised."""
    if delivery.aborted is not None:
        # Whatever it raised, it must not be tried again. The cancellation is undone, because a task that is still
        # cancelled counts as one that the worker's stop has cancelled.
        task.uncancel()
        meant: BaseException = Cancelled(delivery.aborted)
    elif late and isinstance(error, asyncio.CancelledError) and not task.cancelling():
        meant = TimeoutError()
    else:
        return error
    meant.__cause__ = error  # its traceback says where the handler was
    return meant


async def _run_again(handler: CallNext, event: Event, context: Context, error: Conflict) -> None:
    """Run a handler again from its beginning, a few times: its transaction lost to another, which is no failure."""
    for pause in CONFLICT_PAUSES:
        context.log.debug("run again", reason=str(error))
        await asyncio.sleep(random.uniform(0.0, pause))  # noqa: S311 - keeps those that collided apart
        context = context.renewed()
        try:
            return await handler(event, context)
        except Conflict as another:
            error = another
    raise error
