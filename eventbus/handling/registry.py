"""A handler as a group keeps it: the function, and the policy for what it handles."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar

from eventbus.checks.numbers import LONGEST
from eventbus.context import Context, HandlerBus
from eventbus.contract.tap import Passing
from eventbus.event import Event
from eventbus.handling.batch import Batch
from eventbus.policy import RetryPolicy

MAX_SIZE, MAX_WAIT = 100, 0.5
TAP_SIZE, TAP_WAIT = 1_000, 0.05

E = TypeVar("E", bound=Event)
Handler = Callable[[E, Context], Awaitable[None]]
BatchHandler = Callable[[Batch[E]], Awaitable[None]]
# A group holds handlers of many event types; each was checked against its own type where it was registered.
AnyHandler = Callable[[Any, Context], Awaitable[None]]
AnyBatchHandler = Callable[[Batch[Any]], Awaitable[None]]
TapHandler = Callable[[Sequence[Passing], HandlerBus], Awaitable[None]]


class Overrides(TypedDict, total=False):
    """What a handler may have of its own, instead of what its group has."""

    timeout: float | None
    retry: RetryPolicy | None


class Batching(Overrides, total=False):
    """See Group.on_batch."""

    max_size: int
    max_wait: float


@dataclass(frozen=True, slots=True)
class Registration:
    """`timeout` in seconds, of one attempt."""

    handler: AnyHandler
    timeout: float | None
    retry: RetryPolicy

    @property
    def label(self) -> str:
        return label_of(self.handler)


@dataclass(frozen=True, slots=True, eq=False)
class BatchRegistration:
    """`timeout` of a whole batch. All types that the handler was registered for share its batches."""

    handler: AnyBatchHandler
    timeout: float | None
    retry: RetryPolicy
    max_size: int
    max_wait: float

    @property
    def label(self) -> str:
        return label_of(self.handler)


AnyRegistration = Registration | BatchRegistration


@dataclass(frozen=True, slots=True, eq=False)
class Tap:
    """The handler of a group that reads whole streams: those in `streams`, or if it is empty, all that there are."""

    handler: TapHandler
    streams: tuple[str, ...]
    timeout: float | None
    max_size: int
    max_wait: float

    @property
    def label(self) -> str:
        return label_of(self.handler)

    def faults(self) -> list[str]:
        """What is wrong with it, whatever the group."""
        wrong = [] if inspect.iscoroutinefunction(self.handler) else ["it must be an async function"]
        if self.max_size < 1 or not 0 <= self.max_wait <= LONGEST:
            wrong.append(f"max_size={self.max_size}, max_wait={self.max_wait}")
        if self.timeout is not None and not 0 < self.timeout <= LONGEST:
            wrong.append(f"timeout={self.timeout} must be above 0 seconds, or None")
        return wrong


def label_of(handler: Callable[..., object]) -> str:
    """Its name, for people."""
    return f"{handler.__module__}.{handler.__qualname__}"
