"""A consumer group: a name, one policy, and the handlers registered on it."""

import inspect
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import EllipsisType
from typing import Any, TypeVar, Unpack, overload

from eventbus.checks.numbers import LONGEST, count_faults, seconds_faults
from eventbus.contract.limits import InFlight, RateLimit, SlowLane, limits_of
from eventbus.contract.recurring import CATCH_UP, Cron, Every, Recurring, Schedule, Tick
from eventbus.errors import ConfigurationError
from eventbus.event import Event, stream_of
from eventbus.handling import listeners
from eventbus.handling.listeners import AnyListener, Finished
from eventbus.handling.middleware import Middleware, find_faults
from eventbus.handling.registry import (
    MAX_SIZE,
    MAX_WAIT,
    TAP_SIZE,
    TAP_WAIT,
    AnyBatchHandler,
    AnyHandler,
    AnyRegistration,
    BatchHandler,
    Batching,
    BatchRegistration,
    Handler,
    Overrides,
    Registration,
    Tap,
    TapHandler,
    label_of,
)
from eventbus.policy import RetryPolicy

LONGEST_NAME = 200  # characters; PostgreSQL has it in an index
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")

E = TypeVar("E", bound=Event)
E2 = TypeVar("E2", bound=Event)
E3 = TypeVar("E3", bound=Event)
L = TypeVar("L", bound=AnyListener)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None and len(value) <= LONGEST_NAME


class Group:
    """What other systems call a queue: every event reaches each group once, and there one of its consumers.

    retry         how often and when a failing event is tried again
    concurrency   handlers that run at the same time, per process; that of a batch counts as one
    slow_lane     places for handlers that take long, so that others start meanwhile; None: they keep their own places
    timeout       seconds that one attempt may take; None for no bound
    lease         seconds after which a dead worker's events go to another; renewed while a handler runs
    max_in_flight  handlers that run at the same time across all processes; per key with InFlight(…, by=…)
    rate_limit    how many may start in a span of time across all processes; several may be given
    crash_budget  an event becomes a dead letter when so many workers have died while they ran it alone; None: no event
                  is blamed for a worker's death, for groups that do the same with every event
    track         keep the state, progress and counts of its events: see bus.groups.state, counts and watch
    keep_completed, keep_failed  with `track`: how many events that ended so stay known; others for a minute
    ordered       events of one key (`publish(key=…)`) are handled one at a time and in the order of publishing, in
                  whichever process; one that fails holds back its own key until it is done or dead. The order is that
                  of each priority. Events without a key are as in any other group
    middleware    runs around each handler, the first outermost; see eventbus.handling.middleware
    task_per_event  run each event in an asyncio task of its own, for libraries that keep state by
                  `asyncio.current_task()`; costs about a sixth more for handlers that never wait

    Raises ConfigurationError naming every setting that cannot work.
    """

    def __init__(
        self,
        name: str,
        *,
        retry: RetryPolicy | None = None,
        concurrency: int = 10,
        slow_lane: SlowLane | None = None,
        timeout: float | None = 60.0,
        lease: float = 10.0,
        crash_budget: int | None = 3,
        max_in_flight: int | InFlight | Sequence[InFlight] | None = None,
        rate_limit: RateLimit | Sequence[RateLimit] | None = None,
        track: bool = False,
        keep_completed: int = 0,
        keep_failed: int = 10_000,
        ordered: bool = False,
        middleware: Sequence[Middleware] = (),
        task_per_event: bool = False,
    ) -> None:
        named = _is_name(name)
        told = f"the name must be lower-case letters, digits, '.', '_' or '-', and {LONGEST_NAME} at the most"
        faults = [] if named else [told]
        faults += count_faults("concurrency", concurrency)
        faults += [] if timeout is None else seconds_faults("timeout", timeout, least=0.001)
        faults += seconds_faults("lease", lease, least=0.1)
        faults += [] if crash_budget is None else count_faults("crash_budget", crash_budget)
        faults += count_faults("keep_completed", keep_completed, least=0)
        faults += count_faults("keep_failed", keep_failed, least=0)
        faults += find_faults(middleware)
        if faults:
            raise ConfigurationError(f"Group({name!r}): " + "; ".join(faults))
        self.name = name
        self.retry = retry or RetryPolicy()
        self.concurrency = concurrency
        self.slow_lane = slow_lane
        self.timeout = timeout
        self.lease = lease
        self.crash_budget = crash_budget
        self.limits = limits_of(rate_limit, max_in_flight)
        self.track = track
        self.keep_completed = keep_completed
        self.keep_failed = keep_failed
        self.ordered = ordered
        self.middleware = tuple(middleware)
        self.task_per_event = task_per_event
        self.handlers: dict[str, AnyRegistration] = {}
        self.listeners: list[AnyListener] = []
        self.recurring: list[Recurring] = []
        self.tapping: Tap | None = None

    @property
    def streams(self) -> list[str]:
        """The streams that this group is known to read, sorted. A tap of all streams finds them while it runs."""
        named = () if self.tapping is None else self.tapping.streams
        return sorted({*(stream_of(event_type) for event_type in self.handlers), *named})

    @property
    def in_hand(self) -> int:
        """Events that one process may have in its hands: enough to fill a batch for every handler that may run."""
        if self.tapping is not None:
            return 2 * self.concurrency * self.tapping.max_size  # while one batch is dealt with, the next one gathers
        sizes = [found.max_size for found in self.handlers.values() if isinstance(found, BatchRegistration)]
        return self.concurrency * max(sizes, default=1)

    @property
    def batches(self) -> bool:
        """Whether it has handlers of batches."""
        return any(isinstance(found, BatchRegistration) for found in self.handlers.values())

    def label_of(self, event_type: bytes) -> str:
        """For people: the name of the handler of an event type, which is given as it is on the wire."""
        found = self.tapping or self.handlers.get(event_type.decode(errors="replace"))
        return "none" if found is None else found.label

    # One overload for each number of classes, up to three: a function of `A | B` is one for A and one for B, and no
    # type checker derives that union by itself.

    @overload
    def on(self, e: type[E], /, **policy: Unpack[Overrides]) -> Callable[[Handler[E]], Handler[E]]: ...
    @overload
    def on(
        self, e: type[E], e2: type[E2], /, **policy: Unpack[Overrides]
    ) -> Callable[[Handler[E | E2]], Handler[E | E2]]: ...
    @overload
    def on(
        self, e: type[E], e2: type[E2], e3: type[E3], /, **policy: Unpack[Overrides]
    ) -> Callable[[Handler[E | E2 | E3]], Handler[E | E2 | E3]]: ...
    @overload
    def on(self, *event_classes: type[E], **policy: Unpack[Overrides]) -> Callable[[Handler[E]], Handler[E]]: ...
    def on(
        self,
        *event_classes: type[Any],
        timeout: float | EllipsisType | None = ...,
        retry: RetryPolicy | None = None,
    ) -> Callable[[AnyHandler], AnyHandler]:
        """Register `async def handler(event, ctx)` for one or more event classes.

        timeout, retry  for these events; left out, they are the group's

        Raises ConfigurationError if a class has no type, a type has a handler in this group already, the function is
        not async, the timeout cannot work, or the group has a tap."""

        def register(handler: AnyHandler) -> AnyHandler:
            self._add(event_classes, Registration(handler, *self._policy(timeout, retry)))
            return handler

        return register

    @overload
    def on_batch(self, e: type[E], /, **policy: Unpack[Batching]) -> Callable[[BatchHandler[E]], BatchHandler[E]]: ...
    @overload
    def on_batch(
        self, e: type[E], e2: type[E2], /, **policy: Unpack[Batching]
    ) -> Callable[[BatchHandler[E | E2]], BatchHandler[E | E2]]: ...
    @overload
    def on_batch(
        self, e: type[E], e2: type[E2], e3: type[E3], /, **policy: Unpack[Batching]
    ) -> Callable[[BatchHandler[E | E2 | E3]], BatchHandler[E | E2 | E3]]: ...
    @overload
    def on_batch(
        self, *event_classes: type[E], **policy: Unpack[Batching]
    ) -> Callable[[BatchHandler[E]], BatchHandler[E]]: ...
    def on_batch(
        self,
        *event_classes: type[Any],
        max_size: int = MAX_SIZE,
        max_wait: float = MAX_WAIT,
        timeout: float | EllipsisType | None = ...,
        retry: RetryPolicy | None = None,
    ) -> Callable[[AnyBatchHandler], AnyBatchHandler]:
        """Register `async def handler(batch)` for events that are better handled together: see eventbus.handling.batch.

        max_size  events in a batch at the most
        max_wait  seconds that the first event of a batch waits for others
        timeout   of a whole batch

        Raises ConfigurationError as `on` does, or if a size or wait cannot work, or the group has a slow lane."""

        def register(handler: AnyBatchHandler) -> AnyBatchHandler:
            if max_size < 1 or not 0 <= max_wait <= LONGEST:
                raise ConfigurationError(
                    f"{self.name}: {label_of(handler)}: max_size={max_size} must be at least 1, "
                    f"max_wait={max_wait} must be seconds"
                )
            for wrong, what in ((self.slow_lane is not None, "with a slow lane"), (self.ordered, "that is ordered")):
                if wrong:
                    raise ConfigurationError(f"{self.name}: {label_of(handler)}: no batches on a group {what}")
            policy = self._policy(timeout, retry)
            self._add(event_classes, BatchRegistration(handler, *policy, max_size, max_wait))
            return handler

        return register

    def tap(
        self,
        *streams: str,
        max_size: int = TAP_SIZE,
        max_wait: float = TAP_WAIT,
        timeout: float | EllipsisType | None = ...,
    ) -> Callable[[TapHandler], TapHandler]:
        """Register `async def handler(events, bus)` for all events on these streams; without any, on all streams that
        there are or will be. See eventbus.contract.tap.

        max_size  events that it is handed at a time, at the most
        max_wait  seconds that the first of them waits for others
        timeout   of each attempt at a batch; left out, it is the group's

        An error that the handler raises counts for all events that it was handed. Its worker keeps them in hand, and
        calls it with them again: as often and as late as the group's policy says, and once a second while a server is
        away. An error given to a single event with `fail` is judged as in any other group.

        A group with a tap has no other handlers, and nothing that is for typed events: middleware, limits, `track`, a
        slow lane. Raises ConfigurationError if it has one of these, or if an argument cannot work."""

        def register(handler: TapHandler) -> TapHandler:
            seconds = self.timeout if isinstance(timeout, EllipsisType) else timeout
            tap = Tap(handler, streams, seconds, max_size, max_wait)
            faults = tap.faults() + [
                fault
                for wrong, fault in (
                    (bool(self.handlers) or self.tapping is not None, "the group has a handler already"),
                    (bool(self.middleware or self.limits or self.track), "no middleware, limits or track on a tap"),
                    (self.slow_lane is not None, "no slow lane on a tap"),
                    (self.ordered, "a tap has no order by key"),
                )
                if wrong
            ]
            if faults:
                raise ConfigurationError(f"{self.name}: {tap.label} cannot tap: {'; '.join(faults)}")
            self.tapping = tap
            return handler

        return register

    def every(
        self, period: float | timedelta, *, name: str | None = None, catch_up: float = CATCH_UP
    ) -> Callable[[Handler[Tick]], Handler[Tick]]:
        """Run `async def handler(tick, ctx)` every so many seconds, once among all workers.

        Moments are multiples of the period since 1970-01-01 00:00 UTC. A firing is an event like any other: retried,
        leased, dead-lettered.

        name      default: the function's name. The last firing is recorded under it: a new name starts anew
        catch_up  seconds after which a missed firing is left out. Of several that were missed, only the last one is
                  made up for
        """
        if not isinstance(period, timedelta) and (faults := seconds_faults("period", period)):
            raise ConfigurationError(f"{self.name}: every({period}): {faults[0]}")
        whole = period if isinstance(period, timedelta) else timedelta(seconds=period)
        return self._recur(Every(whole), name, catch_up)

    def cron(
        self, expression: str, *, tz: str = "UTC", name: str | None = None, catch_up: float = CATCH_UP
    ) -> Callable[[Handler[Tick]], Handler[Tick]]:
        """As `every`, by a cron expression in a time zone (`tz="Europe/Berlin"`): see
        eventbus.contract.recurring.Cron."""
        return self._recur(Cron.of(expression, tz), name, catch_up)

    def _recur(self, schedule: Schedule, name: str | None, catch_up: float) -> Callable[[Handler[Tick]], Handler[Tick]]:
        def register(handler: Handler[Tick]) -> Handler[Tick]:
            recurring = Recurring.of(self.name, name or handler.__name__, schedule, catch_up)
            self.on(recurring.tick)(handler)
            self.recurring.append(recurring)
            return handler

        return register

    def _policy(
        self, timeout: float | EllipsisType | None, retry: RetryPolicy | None
    ) -> tuple[float | None, RetryPolicy]:
        return self.timeout if isinstance(timeout, EllipsisType) else timeout, retry or self.retry

    # Listeners: `def` or `async def` functions of one Finished. See eventbus.handling.listeners for when, and how
    # reliably.

    def on_completed(self, listener: L) -> L:
        """Tell this function of every handler that returned."""
        return self._listen(listeners.completed, listener)

    def on_failed(self, listener: L) -> L:
        """Tell this function of every attempt that failed and will be followed by another."""
        return self._listen(listeners.failed, listener)

    def on_dead(self, listener: L) -> L:
        """Tell this function of every event that became a dead letter of this group, whether it ran or not."""
        return self._listen(listeners.dead, listener)

    def on_snoozed(self, listener: L) -> L:
        """Tell this function of every event that was put off: its handler raised SnoozeFor, or a server is away."""
        return self._listen(listeners.snoozed, listener)

    def on_error(self, listener: L) -> L:
        """Tell this function of every error, whatever becomes of the event: a retry, a snooze or a dead letter."""
        return self._listen(listeners.errored, listener)

    def _listen(self, occasion: Callable[[Finished], bool], listener: L) -> L:
        self.listeners.append(listeners.only(occasion, listener))
        return listener

    def _add(self, event_classes: Sequence[type[Event]], registration: AnyRegistration) -> None:
        what, timeout = registration.label, registration.timeout
        if self.tapping is not None:
            raise ConfigurationError(
                f"{self.name} is a tap and has no other handlers: register {what} on another group"
            )
        if not inspect.iscoroutinefunction(registration.handler):
            raise ConfigurationError(f"{self.name}: {what} must be an async function")
        if timeout is not None and not 0 < timeout <= LONGEST:
            raise ConfigurationError(f"{self.name}: {what}: timeout={timeout} must be above 0 seconds, or None")
        for event_class in event_classes:
            if not event_class.event_type:
                raise ConfigurationError(f"{self.name}: {event_class.__qualname__} has no event type")
            known = self.handlers.get(event_class.event_type)
            if known is not None:
                raise ConfigurationError(
                    f"{self.name} already handles {event_class.event_type} with {known.label}; "
                    f"register {what} on a group of its own"
                )
            self.handlers[event_class.event_type] = registration

    def __repr__(self) -> str:
        return f"Group({self.name!r}, handles={sorted(self.handlers)})"
