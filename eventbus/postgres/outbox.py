"""Events that commit with the rows they are about."""

from collections.abc import Sequence
from datetime import datetime

from eventbus.checks.numbers import longest_delay
from eventbus.contract.codec import MAX_PAYLOAD, Fields, decode, encode, envelop
from eventbus.contract.dedupe import WINDOW, Dedupe, Once, once
from eventbus.contract.outgoing import Outgoing, outgoing
from eventbus.contract.transaction import Connection, Row
from eventbus.errors import CodecError
from eventbus.event import NORMAL_PRIORITY, Envelope, Event, Origin

# One channel and one lock for each outbox there is: the oid of its table is a part of their names.
CHANNEL = "eventbus_outbox_"
# A lock that a sleeping relay holds. Each transaction that writes events while no relay sleeps shares it. Notifications
# make commits wait for one another, so one is sent only when a relay sleeps. A relay falls asleep only while no such
# transaction is open, and then looks once more: what it does not see then, it will be notified of.
ASLEEP = 0x6576_0003_0000_0000
_DAY = 86_400.0  # seconds
_INSERT = f"""
WITH written AS (
    INSERT INTO eventbus_outbox
        (event_id, type, subject, organization, meta, data, due_at, dedupe_key, dedupe_window, dedupe_replace)
    SELECT id, type, subject, organization, meta, data, coalesce(at, clock_timestamp() + make_interval(secs => delay)),
           key, span, replace
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::float8[], $8::timestamptz[],
                $9::text[], $10::float8[], $11::bool[])
         WITH ORDINALITY AS event (id, type, subject, organization, meta, data, delay, at, key, span, replace, place)
    ORDER BY place
)
SELECT pg_notify('{CHANNEL}' || outbox, '') FROM (SELECT 'eventbus_outbox'::regclass::oid::bigint AS outbox) AS the
WHERE NOT pg_try_advisory_xact_lock_shared({ASLEEP} + outbox)
"""  # noqa: S608 - constants


class Outbox:
    """Publishes inside a transaction that somebody else owns: `await bus.outbox(connection).publish(event)`."""

    def __init__(self, connection: Connection, origin: Origin = Origin(), max_payload: int = MAX_PAYLOAD) -> None:
        self._connection = connection
        self._origin = origin
        self._max_payload = max_payload

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
    ) -> str:
        """Returns the event's id. It reaches its stream when the transaction has committed, and never if that rolls
        back."""
        envelope = envelop(
            event, self._origin, key=key, priority=priority, organization=organization, max_payload=self._max_payload
        )
        await insert(self._connection, [outgoing(envelope, delay, at, once(dedupe_key, dedupe_window, dedupe))])
        return envelope.id


async def insert(connection: Connection, waiting: Sequence[Outgoing]) -> None:
    """Write all of the events in one statement, in order. Their delays begin when it runs."""
    if not waiting:
        return
    envelopes = [item.envelope for item in waiting]
    texts = [[part if isinstance(part, str) else part.decode() for part in encode(e)[1::2]] for e in envelopes]
    await connection.execute(
        _INSERT,
        [e.id for e in envelopes],
        [e.type for e in envelopes],
        [_column(e.subject) for e in envelopes],
        [_column(e.organization) for e in envelopes],
        [meta for _, _, meta, _ in texts],
        [data for _, _, _, data in texts],
        [item.delay or None for item in waiting],
        [item.at for item in waiting],
        [item.once and item.once.key for item in waiting],
        [item.once and item.once.window for item in waiting],
        [item.once is not None and item.once.replace for item in waiting],
    )


def _column(text: str | None) -> str | None:
    """A text without null characters, which PostgreSQL cannot hold. Rows are found by it; `meta` has the whole text."""
    return text and text.replace("\0", "")


def envelope_of(row: Row) -> Envelope:
    """The envelope of an outbox row (event_id, type, meta, data)."""
    return decode(fields_of(row))


def fields_of(row: Row) -> Fields:
    """The fields of an outbox row, as an entry of a stream has them."""
    return {
        b"id": str(row["event_id"]).encode(),
        b"type": row["type"].encode(),
        b"meta": row["meta"].encode(),
        b"data": row["data"].encode(),
    }


def delay_of(row: Row) -> float:
    """Seconds that an outbox row (delay, NULL for none) is kept back. Raises CodecError for what no event's delay may
    be."""
    delay: float = row["delay"] or 0.0
    if not 0 <= delay <= longest_delay() + _DAY:  # the two clocks may differ
        raise CodecError(f"it is due in {delay:g} seconds, and nothing is kept back for that long")
    return delay


def once_of(row: Row) -> Once | None:
    """The dedupe key and window of an outbox row (dedupe_key, dedupe_window, dedupe_replace); None for no key. Raises
    CodecError if they are none that a publisher may give."""
    window = row["dedupe_window"]
    return once(row["dedupe_key"], WINDOW if window is None else window, "replace" if row["dedupe_replace"] else "keep")
