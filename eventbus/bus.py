"""The façade: what a program holds in its hands, as a table of contents.

It publishes by itself. All else is short for a part with a page of its own: `events`, `groups`, `dead_letters`,
`sessions`, `transactions`, `history`, `shared`, `resources`, `spool`, `metrics`.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime

from pydantic import JsonValue

from eventbus.checks.validation import replicas as check_replicas
from eventbus.contract.codec import envelop
from eventbus.contract.dedupe import WINDOW, Dedupe, once
from eventbus.contract.history import History
from eventbus.contract.outgoing import Outgoing, check_outgoing, outgoing
from eventbus.contract.transaction import Connection, OpenTransaction, Outbox
from eventbus.event import NORMAL_PRIORITY, Event, Origin, Receipt, Status, stream_of
from eventbus.handling.sharing import Shared
from eventbus.handling.transactions import Transactions
from eventbus.operating.dead_letters import DeadLetters
from eventbus.operating.events import Events
from eventbus.operating.former_names import FormerNames
from eventbus.operating.groups import Groups
from eventbus.operating.lifecycle import Lifecycle
from eventbus.process import crash_points
from eventbus.sessions import Session, Sessions, opened


class EventBus(Lifecycle, FormerNames):
    """Publish events, and give workers what they need to handle them.

    url       redis://, rediss:// or unix:// (Redis >= 7.0 or Valkey); redis+sentinel://host,host/service/db for what
              sentinels watch; or memory:// for one process and no server; None takes EVENTBUS_REDIS_URL
    database  postgresql:// for outbox and inbox; None does without
    database_pool_size, database_statement_cache, database_schema
              how it is used: see eventbus.postgres.Database. None takes EVENTBUS_DATABASE_POOL and so on
    publish_timeout  seconds that a publish may take, retries and spool included, before it raises Unavailable. With a
                     spool, the last second is kept for the spool, or half of the timeout if that is less
    max_publishes    how many publishes may wait for Redis at a time; further ones wait for one of these to end
    max_publish_bytes  bytes of events that the publishes waiting for Redis may have together; those that wait for their
                     turn may have as many. A publish beyond that goes to the spool, or raises Unavailable, at once
    spool     a file that takes publishes while Redis is away, full or too slow; None: no spool. Its events are sent to
              Redis automatically, by this bus or by another one with the same file
    spool_bytes  how large that file may grow
    max_payload  bytes of JSON that an event may have; a larger one is refused with CodecError
    min_replicas  how many replicas each publish waits for: see `publish`
    partitions  how many logs a stream has, at least: {"lead": 16}. More servers of a cluster share its work then, and
                events of one key stay in order. Redis keeps the number, for all processes; it never shrinks. See
                docs/scaling.md
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
        replicas: int | None = None,
        origin: Origin = Origin(),
    ) -> Receipt:
        """Publish an event. Returns when it is stored or scheduled in Redis; or, if Redis cannot take it, when it is in
        the spool, if there is one: the receipt's status is then `spooled`.

        delay         seconds that it is kept back
        at            or a moment, with a time zone, before which it is not delivered. Both are by the clock of Redis
        key           what the event is about (CloudEvents' subject), for example the lead's id
        priority      1 (first) to 10; travels with the event
        organization  default: the event's `organization_id`, then the origin's
        replicas      so many are waited for, a second at most: see the receipt. Default: the bus' `min_replicas`
        origin        what the event descends from; a handler uses ctx.publish instead
        dedupe_key    of the events of one type and organization with the same key, the first alone is stored; the
                      receipts of the others say `duplicate`, with the id of the first
        dedupe_window seconds that the key holds, counted from the moment at which the first one is due
        dedupe        'keep': the first one stays. 'replace': while it is still scheduled, the later one takes its
                      place, with a delay of its own. The event ids, which are made here, tell which is the later one

        Raises Unavailable if Redis did not confirm within the bus' publish timeout (the event may be stored or not;
        several tries within the timeout store it only once), Full if Redis has no memory left (nothing was stored).
        With a spool, it raises these only if that could not take the event either: the message names both reasons.
        Raises CodecError if the event is larger than `max_payload` or cannot be written as JSON that can be read again.
        Raises WrongType (a CodecError and TypeError) or WrongValue (a CodecError and ValueError) for an argument with a
        type or value that it cannot have: nothing was stored. See eventbus.checks.validation."""
        wanted = self._min_replicas if replicas is None else check_replicas("replicas", replicas)
        envelope = envelop(
            event, origin, key=key, priority=priority, organization=organization, max_payload=self._max_payload
        )
        if delay is None and at is None and dedupe_key is None:  # a tuple's own __new__ takes less: see envelop
            item: Outgoing = tuple.__new__(Outgoing, (envelope, 0.0, None, None))
        else:
            item = outgoing(envelope, delay, at, once(dedupe_key, dedupe_window, dedupe))
        [status] = await self._publishing.append((item,), self._publisher.append)
        crash_points.point("publish.stored")
        event_id = envelope.id if status is not Status.DUPLICATE else await self._first(item)
        receipt = tuple.__new__(Receipt, (event_id, status))
        return (await self._with_replicas(wanted, [item], [receipt]))[0] if wanted else receipt

    async def publish_many(
        self,
        events: Sequence[Event],
        *,
        key: str | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        dedupe_keys: Sequence[str | None] | None = None,
        dedupe_window: float = WINDOW,
        replicas: int | None = None,
        origin: Origin = Origin(),
    ) -> list[Receipt]:
        """Publish several events as `publish` does, in one write and in their order. If an event or argument is refused
        (CodecError), none of them is stored. When this raises Unavailable or Full, some may be stored.

        dedupe_keys: one for each event, None for those that have none."""
        wanted = self._min_replicas if replicas is None else check_replicas("replicas", replicas)
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
            ],
            wanted,
        )

    async def forward(self, items: Sequence[Outgoing]) -> list[Receipt]:
        """Publish envelopes that were made elsewhere, as `publish_many` does. For gateways and bridges, which know more
        of an event than `publish` can be told, such as its source. If one of them is refused, all are."""
        checked = [check_outgoing(item, self._max_payload) for item in items]
        return await self._publish(checked, self._min_replicas) if checked else []

    async def _publish(self, items: list[Outgoing], wanted: int) -> list[Receipt]:
        statuses = await self._publishing.append(items, self._publisher.append)
        crash_points.point("publish.stored")
        receipts = [
            Receipt(item.envelope.id if status is not Status.DUPLICATE else await self._first(item), status)
            for item, status in zip(items, statuses, strict=True)
        ]
        return await self._with_replicas(wanted, items, receipts) if wanted else receipts

    async def _with_replicas(self, wanted: int, items: Sequence[Outgoing], receipts: list[Receipt]) -> list[Receipt]:
        """The receipts, when they say how many replicas have what was published just now: none, where some of it is in
        the spool."""
        spooled = any(receipt.status is Status.SPOOLED for receipt in receipts)
        streams = {item.envelope.stream for item in items}
        got = 0 if spooled else await self.transport.replicated(wanted, streams)
        for receipt in receipts:
            receipt.replicas = got
        return receipts

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

    # What commits together --------------------------------------------------------------------------------------------

    def transaction(self, origin: Origin = Origin()) -> OpenTransaction:
        """`async with bus.transaction() as tx:` rows written through tx.connection and events published through
        tx.publish commit together. Raises Unavailable while PostgreSQL is away."""
        return self.transactions.begin(origin)

    def outbox(self, connection: Connection, origin: Origin = Origin()) -> Outbox:
        """Publish inside a transaction that somebody else owns, on its asyncpg connection."""
        return self.transactions.outbox(connection, origin)

    def session(
        self, *, organization: str = "", metadata: Mapping[str, JsonValue] = {}, origin: Origin = Origin()
    ) -> AbstractAsyncContextManager[Session]:
        """`async with bus.session() as session:` events that are added are published together at the end of the block,
        each once and in order, or none of them if it raises. See eventbus.sessions.

        organization  that of all its events; default: as `publish`
        metadata      kept with the session, for whoever looks at it"""
        return opened(self.sessions, organization, metadata, origin, self._max_payload)

    # Parts, each with a page of its own -------------------------------------------------------------------------------

    events: Events  # find an event, abort its handlers, replay what the store has; what became of an organization's
    groups: Groups  # pause and resume groups; counts, and the state of their events
    dead_letters: DeadLetters  # find dead letters, replay or discard them
    shared: Shared  # what all processes share beside events: circuits, recent things, messages to all
    transactions: Transactions  # transactions, outbox, inbox and relay, for a bus with a database

    def _assemble(self) -> None:
        transport = self.transport
        self.transactions = Transactions(self.database, self._publishing)
        self.events = Events(transport, self.transactions)
        self.groups, self.dead_letters = Groups(transport), DeadLetters(transport)
        self.shared = Shared(transport, self._calls)

    @property
    def sessions(self) -> Sessions:
        """For eventbus.sessions.commands and queries: sessions that last longer than a block."""
        return Sessions(self.transport.sessions, self._contingency, self._known, self.metrics.count_collected)

    @property
    def history(self) -> History:
        """The store of all events: see eventbus.contract.history. Raises ConfigurationError without a database."""
        return self.transactions.database.history
