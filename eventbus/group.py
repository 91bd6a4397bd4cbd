"""A consumer group: a name, one policy, and the handlers registered on it."""

import inspect
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from eventbus import lifecycle
from eventbus.context import Context
from eventbus.errors import ConfigurationError
from eventbus.event import Event, stream_of
from eventbus.lifecycle import AnyListener, Finished
from eventbus.limits import InFlight, RateLimit, limits_of
from eventbus.middleware import Middleware, find_faults
from eventbus.policy import RetryPolicy

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")

E = TypeVar("E", bound=Event)
L = TypeVar("L", bound=AnyListener)
Handler = Callable[[E, Context], Awaitable[None]]
# A group holds handlers of many event types; each was checked against its own type where it was registered.
AnyHandler = Callable[[Any, Context], Awaitable[None]]


class Group:
    """What the queue world calls a queue: every event reaches each group once, and one of its consumers.

    retry         how often and when a failing event is tried again
    concurrency   handlers that run at the same time, per process
    timeout       seconds that one attempt may take; None for no bound
    lease         seconds after which a dead worker's events go to another; renewed while a handler runs
    max_in_flight  handlers that run at the same time across all processes; per key with InFlight(…, by=…)
    rate_limit    how many may start in a span of time across all processes; several may be given
    crash_budget  an event with which so many workers died while they ran nothing else is dead-lettered
    track         keep the state, progress and counts of its events: see EventBus.state, counts and watch
    keep_completed, keep_failed  how many events that ended so are kept to be asked about; others for a minute
    middleware    runs around each handler, the first outermost; see eventbus.middleware

    Raises ConfigurationError naming every setting that cannot work.
    """

    def __init__(
        self,
        name: str,
        *,
        retry: RetryPolicy | None = None,
        concurrency: int = 10,
        timeout: float | None = 60.0,
        lease: float = 10.0,
        crash_budget: int = 3,
        max_in_flight: int | InFlight | Sequence[InFlight] | None = None,
        rate_limit: RateLimit | Sequence[RateLimit] | None = None,
        track: bool = False,
        keep_completed: int = 0,
        keep_failed: int = 10_000,
        middleware: Sequence[Middleware] = (),
    ) -> None:
        faults = [
            fault
            for wrong, fault in (
                (not _NAME.fullmatch(name), "the name must be lower-case letters, digits, '.', '_' or '-'"),
                (concurrency < 1, f"concurrency={concurrency} must be at least 1"),
                (timeout is not None and timeout <= 0, f"timeout={timeout} must be above 0 seconds, or None"),
                (lease < 0.1, f"lease={lease} must be at least 0.1 seconds"),
                (crash_budget < 1, f"crash_budget={crash_budget} must be at least 1"),
                (keep_completed < 0, f"keep_completed={keep_completed} must be at least 0"),
                (keep_failed < 0, f"keep_failed={keep_failed} must be at least 0"),
            )
            if wrong
        ] + find_faults(middleware)
        if faults:
            raise ConfigurationError(f"Group({name!r}): " + "; ".join(faults))
        self.name = name
        self.retry = retry or RetryPolicy()
        self.concurrency = concurrency
        self.timeout = timeout
        self.lease = lease
        self.crash_budget = crash_budget
        self.limits = limits_of(rate_limit, max_in_flight)
        self.track = track
        self.keep_completed = keep_completed
        self.keep_failed = keep_failed
        self.middleware = tuple(middleware)
        self.handlers: dict[str, AnyHandler] = {}
        self.listeners: list[AnyListener] = []

    @property
    def streams(self) -> list[str]:
        """The streams that this group reads, sorted."""
        return sorted({stream_of(event_type) for event_type in self.handlers})

    def on(self, *event_classes: type[E]) -> Callable[[Handler[E]], Handler[E]]:
        """Register `async def handler(event, ctx)` for one or more event classes.

        Raises ConfigurationError if a type has a handler in this group already, or the function is not async."""

        def register(handler: Handler[E]) -> Handler[E]:
            if not inspect.iscoroutinefunction(handler):
                raise ConfigurationError(f"{self.name}: {_label(handler)} must be an async function")
            for event_class in event_classes:
                self._add(event_class, handler)
            return handler

        return register

    # Listeners: `def` or `async def` functions of one Finished. See eventbus.lifecycle for when, and how reliably.

    def on_completed(self, listener: L) -> L:
        """Tell this function of every handler that returned."""
        return self._listen(lifecycle.completed, listener)

    def on_failed(self, listener: L) -> L:
        """Tell this function of every attempt that failed and will be followed by another."""
        return self._listen(lifecycle.failed, listener)

    def on_dead(self, listener: L) -> L:
        """Tell this function of every event that became a dead letter of this group, whether it ran or not."""
        return self._listen(lifecycle.dead, listener)

    def on_error(self, listener: L) -> L:
        """Tell this function of everything that was raised, whatever becomes of the event: a retry, a snooze or a dead
        letter."""
        return self._listen(lifecycle.errored, listener)

    def _listen(self, occasion: Callable[[Finished], bool], listener: L) -> L:
        self.listeners.append(lifecycle.only(occasion, listener))
        return listener

    def _add(self, event_class: type[E], handler: Handler[E]) -> None:
        if not event_class.event_type:
            raise ConfigurationError(f"{self.name}: {event_class.__qualname__} has no event type")
        known = self.handlers.get(event_class.event_type)
        if known is not None:
            raise ConfigurationError(
                f"{self.name} already handles {event_class.event_type} with {_label(known)}; "
                f"register {_label(handler)} on a group of its own"
            )
        self.handlers[event_class.event_type] = handler

    def __repr__(self) -> str:
        return f"Group({self.name!r}, handles={sorted(self.handlers)})"


def _label(handler: Callable[..., object]) -> str:
    return f"{handler.__module__}.{handler.__qualname__}"
