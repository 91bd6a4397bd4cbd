"""What a handler may ask of the bus."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import cached_property
from typing import Protocol, TypeVar

import structlog
from pydantic import JsonValue

from eventbus.contract.circuits import Circuit
from eventbus.contract.dedupe import WINDOW, Dedupe
from eventbus.contract.delivery import Delivery
from eventbus.contract.states import check_progress
from eventbus.contract.tap import Passing
from eventbus.contract.transaction import OpenBatchInbox, OpenTransaction
from eventbus.errors import ConfigurationError
from eventbus.event import NORMAL_PRIORITY, Envelope, Event, Origin, Receipt
from eventbus.process.resources import Resource
from eventbus.process.safe_logging import get_logger

T = TypeVar("T")


class Sharing(Protocol):
    """What is asked of eventbus.handling.sharing."""

    def guarded(self, circuit: Circuit, age: float = 0.0) -> AbstractAsyncContextManager[None]: ...
    async def remember(self, name: str, items: Mapping[bytes, int], *, keep: int, seconds: float) -> None: ...
    async def recall(self, name: str) -> list[bytes]: ...
    async def broadcast(self, channel: str, message: bytes) -> None: ...


class Transacting(Protocol):
    """What is asked of eventbus.handling.transactions."""

    def inbox(self, group: str, event_id: str, origin: Origin) -> OpenTransaction: ...
    def inbox_batch(self, group: str, event_ids: Sequence[str]) -> OpenBatchInbox: ...
    async def record(self, events: Sequence[Passing]) -> None: ...


class Using(Protocol):
    """What is asked of eventbus.process.resources."""

    async def use(self, resource: Resource[T], /) -> T: ...


class HandlerBus(Protocol):
    """The part of a bus that handlers use: through a Context or a Batch, or as it is, those of taps and listeners."""

    @property
    def shared(self) -> Sharing: ...
    @property
    def transactions(self) -> Transacting: ...
    @property
    def resources(self) -> Using: ...

    async def publish(
        self,
        event: Event,
        *,
        key: str | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        priority: int = NORMAL_PRIORITY,
        dedupe_key: str | None = None,
        dedupe_window: float = WINDOW,
        dedupe: Dedupe = "keep",
        organization: str | None = None,
        origin: Origin = Origin(),
    ) -> Receipt: ...

    async def cancel(self, event_id: str, event_type: type[Event] | str | None = None) -> bool: ...
    def transaction(self, origin: Origin = Origin()) -> OpenTransaction: ...


Publisher = HandlerBus  # its name until 1.0


class Context:
    """One attempt at one delivery. Everything published through it carries the event's correlation id.

    `suspect`: workers have died with this event, so nothing else starts in this process while it runs.
    """

    def __init__(
        self,
        bus: HandlerBus,
        envelope: Envelope,
        group: str,
        attempt: int,
        entry_id: str | None = None,
        *,
        suspect: bool = False,
    ) -> None:
        self._bus = bus
        self.envelope = envelope
        self.group = group
        self.attempt = attempt
        self.suspect = suspect
        self._entry_id = entry_id
        self.delivery: Delivery | None = None  # what this is an attempt at; None where there is none
        self.on_progress: Callable[[JsonValue], None] | None = None  # set where the group is tracked
        self._transacted = False

    @property
    def event_id(self) -> str:
        return self.envelope.id

    @property
    def organization_id(self) -> str | None:
        return self.envelope.organization

    @property
    def correlation_id(self) -> str:
        return self.envelope.correlation

    @cached_property
    def log(self) -> structlog.stdlib.BoundLogger:
        """A logger that names event, entry, group, attempt and correlation id in every line."""
        log: structlog.stdlib.BoundLogger = get_logger(
            "eventbus.handler",
            event_type=self.envelope.type,
            event_id=self.event_id,
            group=self.group,
            attempt=self.attempt,
            entry_id=self._entry_id,
            correlation_id=self.correlation_id,
        )
        return log

    @property
    def origin(self) -> Origin:
        """What events published by this handler descend from."""
        return Origin(
            correlation_id=self.correlation_id,
            causation_id=self.event_id,
            organization=self.organization_id,
            traceparent=self.envelope.traceparent,
        )

    def renewed(self) -> "Context":
        """A context for a handler that is run again within its attempt: it may open its transaction once more."""
        renewed = Context(self._bus, self.envelope, self.group, self.attempt, self._entry_id, suspect=self.suspect)
        renewed.delivery, renewed.on_progress = self.delivery, self.on_progress
        return renewed

    async def publish(
        self,
        event: Event,
        *,
        key: str | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        priority: int = NORMAL_PRIORITY,
        dedupe_key: str | None = None,
        dedupe_window: float = WINDOW,
        dedupe: Dedupe = "keep",
        organization: str | None = None,
    ) -> Receipt:
        """As EventBus.publish. A handler that is run again publishes again, unless it uses `tx` of `transaction()`."""
        return await self._bus.publish(
            event,
            key=key,
            delay=delay,
            at=at,
            priority=priority,
            dedupe_key=dedupe_key,
            dedupe_window=dedupe_window,
            dedupe=dedupe,
            organization=organization,
            origin=self.origin,
        )

    async def cancel(self, event_id: str, event_type: type[Event] | str | None = None) -> bool:
        """As EventBus.cancel: True if the event was scheduled and will not be delivered. A rollback of `transaction()`
        does not undo it. Cancelling the same event twice does no harm."""
        return await self._bus.cancel(event_id, event_type)

    async def progress(self, progress: JsonValue) -> None:
        """Say how far the handler is: 0 to 100, or any JSON of at most 4 KiB; anything else raises ValueError. Only the
        latest progress is kept, and this call waits for nothing. Without effect if the group is not tracked."""
        check_progress(progress)
        if self.on_progress is not None:
            self.on_progress(progress)

    async def broadcast(self, channel: str, message: bytes) -> None:
        """As `bus.shared.broadcast`: the message reaches those who listen now, and is not kept."""
        await self._bus.shared.broadcast(channel, message)

    async def use(self, resource: Resource[T], /) -> T:
        """As `bus.resources.use`: what the handler needs beside the bus, opened once for this process."""
        return await self._bus.resources.use(resource)

    def guarded(self, circuit: Circuit) -> AbstractAsyncContextManager[None]:
        """`async with ctx.guarded(CIRCUIT):` goes around a call to an external service, and around nothing else: while
        that service fails, the event is put off and spends no attempt. See eventbus.contract.circuits."""
        return self._bus.shared.guarded(circuit, time.time() - self.envelope.time.timestamp())

    async def remember(self, name: str, items: Mapping[bytes, int], *, keep: int, seconds: float) -> None:
        """As `bus.shared.remember`."""
        await self._bus.shared.remember(name, items, keep=keep, seconds=seconds)

    async def recall(self, name: str) -> list[bytes]:
        """As `bus.shared.recall`."""
        return await self._bus.shared.recall(name)

    def transaction(self) -> OpenTransaction:
        """`async with ctx.transaction() as tx:` commits inbox row, effects and outgoing events together, once.

        On a delivery whose transaction has committed before, the block is left at its first use of `tx` and the
        handler goes on behind it: names assigned inside the block may then be unbound. One transaction per handler.
        A serialization failure or deadlock is raised as Conflict: do not catch it, and the handler is run again from
        its beginning. Raises Unavailable while PostgreSQL is away (the delivery is put off, no attempt spent), and
        ConfigurationError if the bus has no database.
        """
        self.claim_transaction()
        return self._bus.transactions.inbox(self.group, self.event_id, self.origin)

    def side_transaction(self) -> OpenTransaction:
        """A transaction with no inbox row: it commits whatever becomes of the handler, and again on each delivery.

        Use it to look at rows before something slow, so that no connection is held meanwhile; and to note what must be
        known even if the attempt fails or its process dies, for example that a call to an external service was begun. A
        handler may open as many as it needs, but none inside another. Raises as `transaction`."""
        return self._bus.transaction(self.origin)

    def claim_transaction(self) -> None:
        """Raises ConfigurationError the second time: the inbox row would be there already, so that the effects of a
        second transaction would be left out without notice."""
        if self._transacted:
            raise ConfigurationError(f"{self.group}: one transaction() for each event; do it all inside the first")
        self._transacted = True
