"""From a delivery to an outcome: decode, find the handler, run it, judge how it ended. Knows no transport."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple

from eventbus.consuming.batch_executor import Collector, Slots
from eventbus.consuming.overruns import Overruns
from eventbus.context import Context, Publisher
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
from eventbus.process.deadlines import TaskDeadlines, limit
from eventbus.process.ending import Ending
from eventbus.process.telling import get_logger

CONFLICT_PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # seconds, at most, until a transaction that lost is begun again
_DONE = Ack()

log = get_logger("eventbus.executor")


Count = Callable[[str, Outcome, Envelope | None, float], None]


class _Route(NamedTuple):
    """Where events of one type go. `deadlines` None: nothing ends them, or `call` does so itself."""

    call: CallNext
    deadlines: TaskDeadlines | None
    retry: RetryPolicy


class Executor:
    """Runs the handlers of one group, as it is now: what is registered on it later is not seen.

    aborting    knows what must not begin
    counts      are told of every execution before any listener: group, outcome, envelope, seconds, as in Finished
    middleware  runs outside of the group's own
    listeners   are told before the group's own
    overdue     is told of each handler that goes on for long after its time was up
    """

    def __init__(
        self,
        group: Group,
        publisher: Publisher,
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
        self._publisher = publisher
        self._layers = [*middleware, *group.middleware]
        # In a group without batches what is in hand runs; in one with batches much of it waits.
        self._slots = Slots(group.concurrency) if group.batches else None
        self._collectors: dict[BatchRegistration, Collector] = {}
        self.ending = Ending()
        self.overdue = overdue
        self.overruns: Overruns | None = None  # set by the consumer
        self._routes = {event_type: self._route(found) for event_type, found in group.handlers.items()}
        told = [*listeners, *group.listeners]
        self._announcer = Announcer(group.name, told) if told else None
        self._abandoned = False

    async def execute(self, delivery: Delivery) -> Outcome:
        """Never raises but for cancellation before the handler started; return is success, raise is failure."""
        suspect = delivery.crashes >= delivery.subscription.suspect_from
        if suspect and delivery.crashes >= delivery.subscription.condemned_from:
            return self._conclude(delivery, self._bury_crasher(delivery))
        envelope = None
        try:
            envelope = decode(delivery.fields)
            route = self._find_route(envelope)
            if route is None:
                return _DONE
            event = open_event(envelope)
        except CodecError as error:
            return self._conclude(delivery, self._bury_undecoded(delivery, error), envelope, error=error)
        context = Context(
            self._publisher, envelope, self._group.name, delivery.attempt, delivery.entry_id, suspect=suspect
        )
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
        """The outcome of one whose handler did not start, because other code of the application's raised this: as if
        the handler had."""
        try:
            envelope = decode(delivery.fields)
            route = self._find_route(envelope)
        except CodecError as undecoded:
            return self._conclude(delivery, self._bury_undecoded(delivery, undecoded), error=undecoded)
        if route is None:
            return _DONE
        context = Context(self._publisher, envelope, self._group.name, delivery.attempt, delivery.entry_id)
        return self._conclude(delivery, self._judge(route, context, error), envelope, error=error)

    def give_back(self) -> None:
        """Executions that wait for a slot or for their batch end with Release, now."""
        if self._slots is not None:
            self._slots.give_back()
        for collector in self._collectors.values():
            collector.give_back()

    def abandon(self) -> None:
        """Have done with handlers that do not end: whatever they raise from now on, their events are given back.

        Ends handlers of batches; the executions of others are the caller's to end."""
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
                self._collectors[found] = Collector(self._publisher, found, self._slots, self.ending, self.overdue)
            # What an event waits for its batch is no time of the handler's: the batch has slot and timeout.
            return _Route(compose(self._collectors[found].join, self._layers), None, found.retry)
        call = compose(found.handler, self._layers)
        if self._slots is not None:
            return _Route(_in_slot(self._slots, self._deadlines(found.timeout), call), None, found.retry)
        # The consumer starts no more of them than may run.
        return _Route(call, self._deadlines(found.timeout), found.retry)

    def _deadlines(self, timeout: float | None) -> TaskDeadlines | None:
        return None if timeout is None else TaskDeadlines(timeout, self._outlived)

    def _outlived(self, task: asyncio.Task[Any], seconds: float, last: bool) -> None:
        if last and self._slots is not None:
            self._slots.free(task)
        if self.overruns is not None:
            self.overruns.outlived(task, seconds, last)

    def _find_route(self, envelope: Envelope) -> _Route | None:
        """None: the event is none of this group's business. Raises UnknownEventType if no one here knows its type."""
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
        seconds = 0.0 if started is None else perf_counter() - started
        try:
            for count in self._counts:
                count(self._group.name, outcome, envelope, seconds)
            if self._announcer is not None:
                self._announcer.tell(
                    Finished(self._group.name, delivery, outcome, envelope, seconds, error, self._publisher)
                )
        except Exception:  # the outcome is decided; who could not be told of it changes nothing
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
        """Of a handler that raised; or returned, after its time was up."""
        delivery, envelope = context.delivery, context.envelope
        assert delivery is not None, "it is an attempt at one"
        if delivery.given_up:
            return Release()  # it has failed by then, and nobody asks any more
        if failure is None:
            return self._conclude(delivery, _DONE, envelope, started)
        failure = _meaning(failure, task, delivery, late=late)
        return self._conclude(delivery, self._judge_raised(route, context, failure, task), envelope, started, failure)

    def _refusal(self, envelope: Envelope) -> Cancelled | None:
        assert self._aborting is not None
        reason = self._aborting.refusal(self._group.name, envelope.id)
        return None if reason is None else Cancelled(reason)

    def _judge_raised(
        self, route: _Route, context: Context, error: BaseException, task: asyncio.Task[object]
    ) -> Outcome:
        # Whatever it made of being cancelled: its cleanup may have failed. An abort has been told apart before.
        if task.cancelling() and (reason := self.ending.reason) is not None:
            context.log.warning("given back", reason=reason, error=repr(error))
            return Release()
        # Where we cancelled nobody, something that the handler awaited was cancelled, or it cancelled itself.
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
                # Whose connection broke has said so, once; this is said for every event, every second.
                context.log.debug("put off", reason=str(error), delay=delay)
            case Snooze(delay):
                age = round(time.time() - context.envelope.time.timestamp(), 3)
                context.log.info("snoozed", reason=failure_of(error).error, delay=delay, age=age)

    def _bury_undecoded(self, delivery: Delivery, error: CodecError) -> Outcome:
        log.error("dead letter", **delivery.named(), reason=str(error))
        return Dead(Failure(f"{type(error).__name__}: {error}"), attempts=delivery.failures)

    def _bury_crasher(self, delivery: Delivery) -> Outcome:
        budget = self._group.crash_budget
        reason = f"its worker died {delivery.crashes} times while it ran, {budget} of them while nothing else did"
        log.error("dead letter", **delivery.named(), reason=reason)
        return Dead(Failure(f"CrashBudget: {reason}"), attempts=delivery.failures)


def _in_slot(slots: Slots, deadlines: TaskDeadlines | None, call: CallNext) -> CallNext:
    """In a group with batches others wait for their slot, too, and that is no time of the handler's."""

    async def wait_and_call(event: Event, context: Context) -> None:
        async with slots.one():
            with limit(deadlines):
                await call(event, context)
            if context.delivery is not None and context.delivery.given_up:
                raise GivenBack  # it has failed by then

    return wait_and_call


def _meaning(error: BaseException, task: asyncio.Task[object], delivery: Delivery, *, late: bool) -> BaseException:
    """What the end of a handler comes to, whose task may have been cancelled for two reasons of ours."""
    if delivery.aborted is not None:
        # Whatever it made of being cancelled: it must not be tried again. That it was is undone, for the worker that
        # stops cancels its handlers, too, and means something else by it.
        task.uncancel()
        meant: BaseException = Cancelled(delivery.aborted)
    elif late and isinstance(error, asyncio.CancelledError) and not task.cancelling():
        meant = TimeoutError()
    else:
        return error
    meant.__cause__ = error  # whose traceback says where the handler was
    return meant


async def _run_again(handler: CallNext, event: Event, context: Context, error: Conflict) -> None:
    """As a whole, when its transaction lost to another: that is no failure of the handler's."""
    for pause in CONFLICT_PAUSES:
        context.log.debug("run again", reason=str(error))
        await asyncio.sleep(random.uniform(0.0, pause))  # noqa: S311 - so that those who collided part
        context = context.renewed()
        try:
            return await handler(event, context)
        except Conflict as another:
            error = another
    raise error
