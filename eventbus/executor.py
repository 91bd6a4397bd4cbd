"""From a delivery to an outcome: decode, find the handler, run it, judge how it ended. Knows no transport."""

import asyncio
import traceback
from collections.abc import Sequence
from time import perf_counter

import structlog

from eventbus.codec import decode, open_event
from eventbus.context import Context, Publisher
from eventbus.errors import CodecError, Reject, RetryLater, Unavailable, hide_password
from eventbus.event import Envelope, event_class
from eventbus.group import Group
from eventbus.lifecycle import Announcer, AnyListener, Finished
from eventbus.middleware import CallNext, Middleware, compose
from eventbus.transport import Ack, Dead, Delivery, Failure, Outcome, Release, Retry, Snooze

UNAVAILABLE_SNOOZE = 1.0  # seconds until a handler that met a server which is away is run again
_DONE = Ack()
_ERROR_LIMIT, _TRACEBACK_LIMIT = 1_000, 16_000  # characters kept in a dead letter

log = structlog.get_logger("eventbus.executor")


class Executor:
    """Runs the handlers of one group, as it is now: what is registered on it later is not seen.

    middleware  runs outside of the group's own
    listeners   are told before the group's own
    """

    def __init__(
        self,
        group: Group,
        publisher: Publisher,
        *,
        middleware: Sequence[Middleware] = (),
        listeners: Sequence[AnyListener] = (),
    ) -> None:
        self._group = group
        self._publisher = publisher
        layers = [*middleware, *group.middleware]
        self._handlers = {event_type: compose(handler, layers) for event_type, handler in group.handlers.items()}
        told = [*listeners, *group.listeners]
        self._announcer = Announcer(group.name, told) if told else None

    async def execute(self, delivery: Delivery) -> Outcome:
        """Never raises but for cancellation before the handler started; return is success, raise is failure."""
        if delivery.crashes >= delivery.subscription.condemned_from:
            return self._conclude(delivery, self._bury_crasher(delivery))
        envelope = None
        try:
            envelope = decode(delivery.fields)
            handler = self._find_handler(envelope)
            if handler is None:
                return _DONE
            event = open_event(envelope)
        except CodecError as error:
            return self._conclude(delivery, self._bury_undecoded(delivery, error), envelope, error=error)
        context = Context(self._publisher, envelope, self._group.name, delivery.attempt, delivery.entry_id)
        context.delivery = delivery
        started = perf_counter()
        try:
            async with asyncio.timeout(self._group.timeout):
                await handler(event, context)
        except asyncio.CancelledError as error:
            outcome = self._judge_cancelled(delivery, context, error)
            return self._conclude(delivery, outcome, envelope, started, error)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it raises is its failure, sys.exit() too
            return self._conclude(delivery, self._judge(delivery, context, error), envelope, started, error)
        return self._conclude(delivery, _DONE, envelope, started)

    async def drain(self, seconds: float) -> None:
        """Give listeners that are still at work so long to end, then cancel them."""
        if self._announcer is not None:
            await self._announcer.drain(seconds)

    def _conclude(
        self,
        delivery: Delivery,
        outcome: Outcome,
        envelope: Envelope | None = None,
        started: float | None = None,
        error: BaseException | None = None,
    ) -> Outcome:
        if self._announcer is not None:
            seconds = 0.0 if started is None else perf_counter() - started
            self._announcer.tell(Finished(self._group.name, delivery, outcome, envelope, seconds, error))
        return outcome

    def _find_handler(self, envelope: Envelope) -> CallNext | None:
        """None: the event is none of this group's business. Raises UnknownEventType if no one here knows its type."""
        if envelope.only is not None and envelope.only != self._group.name:
            return None
        handler = self._handlers.get(envelope.type)
        if handler is None:
            event_class(envelope.type)
        return handler

    def _judge(self, delivery: Delivery, context: Context, error: BaseException) -> Outcome:
        match error:
            case Unavailable():
                # Whose connection broke has said so, once; this is said for every event, every second.
                context.log.debug("put off", reason=str(error), delay=UNAVAILABLE_SNOOZE)
                return Snooze(UNAVAILABLE_SNOOZE)
            case Reject():
                return self._bury(delivery, context, error)
            case RetryLater():
                return self._retry(delivery, context, error, error.delay)
            case _:
                return self._retry(delivery, context, error, None)

    def _judge_cancelled(self, delivery: Delivery, context: Context, error: asyncio.CancelledError) -> Outcome:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            context.log.warning("given back", reason="the worker is stopping and its grace is over")
            return Release()
        # Nobody cancelled us: something that the handler awaited was cancelled, and it let that pass.
        return self._retry(delivery, context, error, None)

    def _retry(self, delivery: Delivery, context: Context, error: BaseException, delay: float | None) -> Outcome:
        scheduled = self._group.retry.delay_after(delivery.attempt)
        if scheduled is None:
            return self._bury(delivery, context, error)
        wait = scheduled if delay is None else delay
        failure = _failure(error)
        context.log.warning("failed, will retry", error=failure.error, delay=round(wait, 3))
        return Retry(wait, failure)

    def _bury(self, delivery: Delivery, context: Context, error: BaseException) -> Outcome:
        failure = _failure(error)
        context.log.error("dead letter", reason=failure.error)
        return Dead(failure, attempts=delivery.attempt)

    def _bury_undecoded(self, delivery: Delivery, error: CodecError) -> Outcome:
        log.error("dead letter", **delivery.named(), reason=str(error))
        return Dead(Failure(f"{type(error).__name__}: {error}"), attempts=delivery.failures)

    def _bury_crasher(self, delivery: Delivery) -> Outcome:
        budget = self._group.crash_budget
        reason = f"its worker died {delivery.crashes} times while it ran, {budget} of them while nothing else did"
        log.error("dead letter", **delivery.named(), reason=reason)
        return Dead(Failure(f"CrashBudget: {reason}"), attempts=delivery.failures)


def _failure(error: BaseException) -> Failure:
    told = traceback.TracebackException.from_exception(error)  # it survives an error that cannot say what it is
    message = " ".join(str(told).split("\n"))
    line = f"{type(error).__name__}: {message}" if message else type(error).__name__
    trace = "".join(told.format())
    return Failure(hide_password(line)[:_ERROR_LIMIT], hide_password(trace)[-_TRACEBACK_LIMIT:])
