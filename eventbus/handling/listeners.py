"""What became of an execution, and who is told.

Listeners are told once the outcome is known and before it is settled. No more is promised: a process that dies tells
nobody, and a repeated execution is told again. For what must happen because of an outcome, publish an event.
"""

import asyncio
import functools
import inspect
import math
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import NamedTuple

from eventbus.context import HandlerBus
from eventbus.contract.delivery import Ack, Dead, Delivery, Outcome, Release, Retry, Snooze
from eventbus.errors import described
from eventbus.event import Envelope
from eventbus.process.safe_logging import get_logger

LISTENER_TIMEOUT = 30.0  # seconds that one call of an asynchronous listener may take
_COMPLAINT_INTERVAL = 60.0  # seconds; a listener that fails may fail at every event
_CANCEL_GRACE = 1.0  # seconds that a cancelled listener has to end
LISTENERS_LIMIT = 1_000  # calls of asynchronous listeners that one group may have under way

log = get_logger("eventbus.lifecycle")


class Finished(NamedTuple):
    """One execution of a handler ended, or could not begin. An event that its group has no handler for does not count.

    outcome   what is made of the delivery, about to be settled
    envelope  None if it could not be decoded
    seconds   how long handler and middleware ran; 0.0 if they did not. Of an event in a batch: its wait included
    error     what led to the outcome: an exception of the handler, a CodecError, or the CancelledError of a Release.
              None after an Ack, and where nothing ran because the event had killed its workers before
    bus       for what the listener wants to publish
    """

    group: str
    delivery: Delivery
    outcome: Outcome
    envelope: Envelope | None
    seconds: float
    error: BaseException | None
    bus: HandlerBus | None = None


# It must be quick, for it runs between the handler's end and the settlement. What takes longer must be asynchronous.
Listener = Callable[[Finished], None]
AsyncListener = Callable[[Finished], Awaitable[None]]
AnyListener = Listener | AsyncListener


# Occasions ------------------------------------------------------------------------------------------------------------


def completed(finished: Finished) -> bool:
    """The handler returned."""
    return isinstance(finished.outcome, Ack)


def failed(finished: Finished) -> bool:
    """The attempt failed, and there will be another."""
    return isinstance(finished.outcome, Retry)


def dead(finished: Finished) -> bool:
    """The event became a dead letter, run or not."""
    return isinstance(finished.outcome, Dead)


def snoozed(finished: Finished) -> bool:
    """It was put off, and spent no attempt."""
    return isinstance(finished.outcome, Snooze)


def errored(finished: Finished) -> bool:
    """Something raised, whatever becomes of the event: a retry, a snooze or a dead letter. Not a worker's stop."""
    return finished.error is not None and not isinstance(finished.outcome, Release)


def only(occasion: Callable[[Finished], bool], listener: AnyListener) -> AnyListener:
    """The listener, told of these occasions alone."""

    @functools.wraps(listener)
    def listen(finished: Finished) -> Awaitable[None] | None:
        return listener(finished) if occasion(finished) else None

    return listen  # type: ignore[return-value]  # it is of the listener's own kind


# Telling --------------------------------------------------------------------------------------------------------------


class Announcer:
    """Tells each listener, in order. Nothing that a listener does reaches the execution or its outcome."""

    def __init__(self, group: str, listeners: Sequence[AnyListener]) -> None:
        self._group = group
        self._listeners = tuple(listeners)
        self._under_way: set[asyncio.Task[None]] = set()
        self._behind = False
        self._complained: dict[int, float] = {}  # by the listener's identity: it need not be hashable

    def tell(self, finished: Finished) -> None:
        """Returns when all have been called; asynchronous ones go on in tasks of their own."""
        for listener in self._listeners:
            try:
                waiting = listener(finished)
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as error:  # noqa: BLE001 - a listener's sys.exit() is its own failure, too
                self._complain(listener, error)
            else:
                if waiting is not None and inspect.isawaitable(waiting):
                    self._start(listener, waiting)

    async def drain(self, seconds: float) -> None:
        """Give the listeners under way so long to end, then cancel them."""
        if self._under_way and seconds > 0:
            await asyncio.wait(self._under_way, timeout=seconds)
        if not self._under_way:
            return
        log.warning("listeners are cancelled: the time to stop is over", group=self._group, count=len(self._under_way))
        for task in self._under_way:
            task.cancel()
        await asyncio.wait(self._under_way, timeout=_CANCEL_GRACE)

    def _start(self, listener: AnyListener, waiting: Awaitable[None]) -> None:
        if len(self._under_way) >= LISTENERS_LIMIT:
            _discard(waiting)
            if not self._behind:  # once, until they have caught up
                log.error("listeners are too slow: not told", group=self._group, listener=_label(listener))
            self._behind = True
            return
        task = asyncio.ensure_future(self._await(listener, waiting))
        self._under_way.add(task)
        task.add_done_callback(functools.partial(self._end, waiting))

    def _end(self, waiting: Awaitable[None], task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        _discard(waiting)  # a task that was cancelled before its first step has not touched it
        self._behind = self._behind and len(self._under_way) > LISTENERS_LIMIT // 2

    async def _await(self, listener: AnyListener, waiting: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(LISTENER_TIMEOUT):
                await waiting
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            self._complain(listener, error)

    def _complain(self, listener: AnyListener, error: BaseException) -> None:
        said = log.bind(group=self._group, listener=_label(listener), error=described(error))
        if monotonic() - self._complained.get(id(listener), -math.inf) < _COMPLAINT_INTERVAL:
            said.debug("a listener failed again")
            return
        self._complained[id(listener)] = monotonic()
        said.error("a listener failed", exc_info=error)


def _discard(waiting: Awaitable[None]) -> None:
    """Close a coroutine that nobody awaits: Python would warn of it."""
    if inspect.iscoroutine(waiting):
        waiting.close()


def _label(listener: AnyListener) -> str:
    return f"{listener.__module__}.{getattr(listener, '__qualname__', type(listener).__qualname__)}"
