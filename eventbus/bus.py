"""The façade: what a program holds in its hands.

It publishes, and opens sessions. What else it can do stands in pages of its own: transactions in
eventbus.handling.committing, what handlers share in eventbus.handling.sharing, what operators ask for in
eventbus.operating.operations. It is longer than other files, because each method's contract is a program's reference.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from pydantic import JsonValue

from eventbus.contract.broker import Broker
from eventbus.contract.circuits import Calls
from eventbus.contract.codec import MAX_PAYLOAD, envelop
from eventbus.contract.dedupe import WINDOW, Dedupe, once
from eventbus.contract.outgoing import Outgoing, check_outgoing, outgoing
from eventbus.contract.retention import Retention
from eventbus.contract.transaction import Database
from eventbus.errors import ConfigurationError, hide_password
from eventbus.event import NORMAL_PRIORITY, Event, Origin, Receipt, Status, stream_of
from eventbus.handling.listeners import AnyListener
from eventbus.handling.middleware import Middleware, find_faults
from eventbus.handling.sharing import Sharing
from eventbus.memory import MemoryTransport
from eventbus.operating.operations import Operations
from eventbus.process import crash_points
from eventbus.process.closing import Closing
from eventbus.process.home import Home
from eventbus.process.resources import Resources
from eventbus.publishing.breaker import Breaker
from eventbus.publishing.inflight import Places
from eventbus.publishing.publisher import MAX_PUBLISH_BYTES, Publisher
from eventbus.publishing.spool import SPOOL_BYTES, Spool
from eventbus.redis import COMMAND_TIMEOUT, RedisTransport
from eventbus.sessions import Contingency, Known, Recovery, Session, Sessions, opened
from eventbus.settings import Settings
from eventbus.telemetry import Metrics
from eventbus.telemetry.publishing import Publishing

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

T = TypeVar("T")

PUBLISH_TIMEOUT = 5.0  # seconds
MAX_PUBLISHES = 10_000
_NAMESPACE = re.compile(r"[A-Za-z0-9._:-]{1,100}")  # other characters have a meaning in patterns or hash tags


class EventBus(Operations, Sharing):
    """Publish events, and give workers what they need to handle them.

    url       redis://, rediss:// or unix:// (Redis >= 7.0 or Valkey), or memory:// for one process and no server;
              None takes EVENTBUS_REDIS_URL
    database  postgresql:// for outbox and inbox; None does without
    publish_timeout  seconds that a publish may take, retries and spool included, before it raises Unavailable. With a
                     spool, the last second is kept for the spool, or half of the timeout if that is less
    max_publishes    how many publishes may wait for Redis at a time; further ones wait for one of these to end
    max_publish_bytes  bytes of events that the publishes waiting for Redis may have together; those that wait for their
                     turn may have as many. A publish beyond that goes to the spool, or raises Unavailable, at once
    spool     a file that takes publishes while Redis is away, full or too slow; None: no spool. Its events are sent to
              Redis automatically, by this bus or by another one with the same file
    spool_bytes  how large that file may grow
    max_payload  bytes of JSON that an event may have; a larger one is refused with CodecError
    retention  how long workers keep what is settled, and dead letters
    history    how long the database keeps every event, and what groups made of it; None keeps nothing. See
               eventbus.roles.history_group
    namespace   what all keys in Redis begin with: buses of different namespaces on one server do not see each other
    middleware  runs around the handlers of every group, outside of the group's own; see eventbus.handling.middleware
    listeners   are told of every execution of every group's handlers; see eventbus.handling.listeners
    tracer      an OpenTelemetry tracer, for spans; None: that of the SDK, if one is set up when the bus connects

    `async with EventBus(…) as bus:` connects, and raises Unavailable or ConfigurationError if that cannot be done. It
    opens once, and belongs to the event loop and the process that it was opened in: used elsewhere, before or
    afterwards it raises ConfigurationError. One in memory needs no opening.
    `bus.metrics` counts: see eventbus.telemetry.
    """

    _publishing: Publishing

    def __init__(
        self,
        url: str | None = None,
        *,
        database: str | None = None,
        publish_timeout: float = PUBLISH_TIMEOUT,
        max_publishes: int = MAX_PUBLISHES,
        max_publish_bytes: int = MAX_PUBLISH_BYTES,
        spool: Path | str | None = None,
        spool_bytes: int = SPOOL_BYTES,
        max_payload: int = MAX_PAYLOAD,
        retention: Retention = Retention(),
        history: timedelta | None = None,
        namespace: str = "eb",
        middleware: Sequence[Middleware] = (),
        listeners: Sequence[AnyListener] = (),
        tracer: "Tracer | None" = None,
    ) -> None:
        counts = {"publish_timeout": publish_timeout, "max_publishes": max_publishes, "spool_bytes": spool_bytes}
        counts |= {"max_payload": max_payload, "max_publish_bytes": max_publish_bytes}
        _check(find_faults(middleware), namespace, counts, history, kept=database is not None)
        target = url or Settings().require_redis_url()
        self._max_payload = max_payload
        self.retention = retention
        self.history_kept = history
        self.middleware = tuple(middleware)
        self.metrics = Metrics()
        self.listeners = tuple(listeners)
        self._tracer = tracer
        self._publishing = Publishing(self.metrics)
        self._resources = Resources()
        self.home = Home(must_be_open=not target.startswith("memory://"))
        self._transport = _open_broker(target, namespace, min(publish_timeout, COMMAND_TIMEOUT), self.home)
        self.closing = Closing()
        self.spool = self.metrics.spool = Spool(spool, limit=spool_bytes) if spool is not None else None
        self._breaker = Breaker()
        server = f"Redis at {hide_password(target)}"
        self._publisher = Publisher(
            self._transport,
            self.spool,
            self._breaker,
            server=server,
            timeout=publish_timeout,
            limit=max_publishes,
            most=max_publish_bytes,
            home=self.home,
        )
        self._contingency = Contingency(self.spool, self._breaker, server=server, timeout=publish_timeout)
        self._known, self._calls = Known(), Calls()
        self.database = _open_database(database, max_payload) if database else None

    @property
    def transport(self) -> Broker:
        """What carries the events; another one may be put in its place before the bus is opened."""
        return self._transport

    @transport.setter
    def transport(self, transport: Broker) -> None:
        self._transport = self._publisher.transport = transport

    @property
    def in_flight(self) -> Places:
        """Publishes that wait for Redis now: `len(bus.in_flight)`."""
        return self._publisher.in_flight

    async def __aenter__(self) -> Self:
        self.home.enter()
        try:
            await self.transport.connect()
            if self.database is not None:
                await self.database.connect()
        except BaseException:
            await self.close()
            raise
        self._begin_tracing()
        if self.spool is not None:
            self.spool.start(self.transport, self._breaker)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the bus, in the event loop that it was opened in; in another loop this raises ConfigurationError.

        Workers that still run give back what they hold first. A second call does nothing. A call in a forked child
        process does nothing either: the connections belong to the parent."""
        if self.home.forked or self.home.closed or self.closing.begun:
            return
        if self.home.loop is not None:
            self.home.check()
        try:
            await self.closing.begin()
            await self._resources.close()
            if self.spool is not None:
                await self.spool.close()
            if self.database is not None:
                await self.database.close()
            await self.transport.close()
        finally:
            self.home.leave()

    def _begin_tracing(self) -> None:
        """Trace with the bus' tracer, or with an SDK that is set up: it has imported `opentelemetry.trace`. Without
        either, nothing is imported and tracing costs nothing."""
        if self._tracer is None and "opentelemetry.trace" not in sys.modules:
            return
        from eventbus.telemetry.tracing import Tracing, find_tracing  # noqa: PLC0415 - opentelemetry-api is an extra

        tracing = Tracing(self._tracer) if self._tracer is not None else find_tracing()
        if tracing is not None and self._publishing.tracing is None:
            self._publishing.tracing = tracing
            self.middleware = (tracing.process, *self.middleware)

    # Publishing -------------------------------------------------------------------------------------------------------

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
    ) -> Receipt:
        """Publish an event. Returns when it is stored or scheduled in Redis; or, if Redis cannot take it, when it is in
        the spool, if there is one: the receipt's status is then `spooled`.

        delay         seconds that it is kept back
        at            or a moment, with a time zone, before which it is not delivered; one that has passed means now.
                      Both are measured by the clock of Redis
        key           what the event is about (CloudEvents' subject), for example the lead's id
        priority      1 (first) to 10; travels with the event
        organization  default: the event's `organization_id`, then the origin's
        origin        what the event descends from; a handler uses ctx.publish instead
        dedupe_key    of the events of one type and organization with the same key, the first alone is stored; the
                      receipts of the others say `duplicate`, with the id of the first
        dedupe_window seconds that the key holds, counted from the moment at which the first one is due
        dedupe        'keep': the first one stays. 'replace': while it is still scheduled, the later one takes its
                      place, with a delay of its own. The event ids, which are made here, tell which is the later one

        Raises Unavailable if Redis did not confirm within the bus' publish timeout (the event may be stored or not;
        several tries within the timeout store it only once), Full if Redis has no memory left (nothing was stored).
        With a spool, it raises these only if the spool could not take the event either: the message names both reasons.
        Raises CodecError if the event is larger than `max_payload` or cannot be written as JSON that can be read again.
        Raises WrongType (a CodecError and TypeError) or WrongValue (a CodecError and ValueError) for an argument with a
        type or value that it cannot have: nothing was stored. See eventbus.checks.validation."""
        envelope = envelop(
            event, origin, key=key, priority=priority, organization=organization, max_payload=self._max_payload
        )
        at_once = delay is None and at is None and dedupe_key is None
        if at_once:  # a tuple's own __new__ takes two thirds of what the class' does: see envelop
            item: Outgoing = tuple.__new__(Outgoing, (envelope, 0.0, None, None))
        else:
            item = outgoing(envelope, delay, at, once(dedupe_key, dedupe_window, dedupe))
        [status] = await self._publishing.append((item,), self._publisher.append)
        crash_points.point("publish.stored")
        event_id = envelope.id if status is not Status.DUPLICATE else await self._first(item)
        return tuple.__new__(Receipt, (event_id, status))

    async def publish_many(
        self,
        events: Sequence[Event],
        *,
        key: str | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        dedupe_keys: Sequence[str | None] | None = None,
        dedupe_window: float = WINDOW,
        origin: Origin = Origin(),
    ) -> list[Receipt]:
        """Publish several events as `publish` does, in one write and in their order. If an event or argument is refused
        (CodecError), none of them is stored. When this raises Unavailable or Full, some may be stored.

        dedupe_keys: one for each event, None for those that have none."""
        limit = self._max_payload
        keys = [None] * len(events) if dedupe_keys is None else dedupe_keys
        return await self._publish(
            [
                outgoing(
                    envelop(event, origin, key=key, max_payload=limit),
                    delay,
                    at,
                    once(dedupe_key, dedupe_window, "keep"),
                )
                for event, dedupe_key in zip(events, keys, strict=True)
            ]
        )

    async def forward(self, items: Sequence[Outgoing]) -> list[Receipt]:
        """Publish envelopes that were made elsewhere, as `publish_many` does. For gateways and bridges, which know more
        of an event than `publish` can be told, such as its source. If one of them is refused, all are."""
        checked = [check_outgoing(item, self._max_payload) for item in items]
        return await self._publish(checked) if checked else []

    async def _publish(self, items: list[Outgoing]) -> list[Receipt]:
        statuses = await self._publishing.append(items, self._publisher.append)
        crash_points.point("publish.stored")
        return [
            Receipt(item.envelope.id if status is not Status.DUPLICATE else await self._first(item), status)
            for item, status in zip(items, statuses, strict=True)
        ]

    async def _first(self, item: Outgoing) -> str:
        """The id for a duplicate's receipt: that of the event that holds its dedupe key; its own if none holds it."""
        first = None if item.once is None else await self.transport.holder(item.envelope, item.once)
        return first or item.envelope.id

    async def cancel(self, event_id: str, event_type: type[Event] | str | None = None) -> bool:
        """Take back an event that is scheduled: True if it will not be delivered, False if it is not scheduled (any
        more), for example because it has come due.

        event_type  the event's class or its type; without it, all streams are looked through

        Raises Unavailable if Redis did not answer; then it may have been cancelled."""
        name = event_type if event_type is None or isinstance(event_type, str) else event_type.event_type
        return await self.transport.cancel(event_id, name and stream_of(name))

    # Sessions ---------------------------------------------------------------------------------------------------------

    def session(
        self, *, organization: str = "", metadata: Mapping[str, JsonValue] = {}, origin: Origin = Origin()
    ) -> AbstractAsyncContextManager[Session]:
        """`async with bus.session() as session:` events that are added are published together at the end of the block,
        each once and in order, or none of them if it raises. See eventbus.sessions.

        organization  that of all its events; default: as `publish`
        metadata      kept with the session, for whoever looks at it"""
        return opened(self.sessions, organization, metadata, origin, self._max_payload)

    @property
    def sessions(self) -> Sessions:
        """For eventbus.sessions.commands and queries: sessions that last longer than a block."""
        return Sessions(self.transport.sessions, self._contingency, self._known, self.metrics.count_collected)

    def recovery(self) -> Recovery:
        """Ends commits of sessions whose process has died. Workers run it by themselves."""
        return Recovery(self.transport, self.metrics.count_collected)


def _check(
    wrong: Sequence[str], namespace: object, counts: Mapping[str, float], history: timedelta | None, *, kept: bool
) -> None:
    """Raises ConfigurationError naming all that is wrong with an EventBus' arguments. `kept`: it has a database."""
    wrong = [*wrong, *(f"{name} {value} must be positive" for name, value in counts.items() if value <= 0)]
    if not (isinstance(namespace, str) and _NAMESPACE.fullmatch(namespace)):
        wrong.append(f"namespace={namespace!r:.120} must be 1 to 100 letters, digits, '.', '_', ':' or '-'")
    if history is not None and (not kept or history <= timedelta()):
        wrong.append(f"history={history} needs database=…, and must be above 0, or None")
    if wrong:
        raise ConfigurationError("EventBus: " + "; ".join(wrong))


def _open_broker(target: str, namespace: str, timeout: float, home: Home) -> Broker:
    if target.startswith("memory://"):
        return MemoryTransport()
    return RedisTransport(target, namespace=namespace, timeout=timeout, home=home)


def _open_database(dsn: str, max_payload: int) -> Database:
    try:
        from eventbus.postgres import Database as Postgres  # noqa: PLC0415 - asyncpg is an extra
    except ImportError:
        raise ConfigurationError("database=… needs asyncpg: pip install 'eventbus[postgres]'") from None
    return Postgres(dsn, max_payload=max_payload)
