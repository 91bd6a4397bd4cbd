"""The group that records: every event that passes, once, whatever it is; and what the groups made of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from eventbus import (
    Backoff,
    ConfigurationError,
    Context,
    Event,
    EventBus,
    Group,
    Reject,
    RetryPolicy,
    SnoozeFor,
    Worker,
)
from eventbus.contract.codec import encode, pairs
from eventbus.contract.history import Ending, Execution, Selection
from eventbus.contract.outgoing import Outgoing
from eventbus.contract.tap import Passing
from eventbus.event import Envelope, Origin, unix_ms, uuid7
from eventbus.postgres import Database, partitions
from eventbus.redis.keys import stream_keys
from eventbus.roles import history_group as recording_group
from eventbus.roles import stream_discovery
from eventbus.roles.history_group import recorder
from eventbus.settings import Settings
from tests.waiting import PATIENCE, eventually
from tests.working import working

A_YEAR = timedelta(days=365)
ALL = Selection()


class Paid(Event, type="invoice.paid"):
    number: int = 0


class Sent(Event, type="crate.sent"):
    number: int = 0


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_discovery, "INTERVAL", 0.2)
    monkeypatch.setattr(stream_discovery, "REST", 1)


@pytest.fixture
async def bus(redis_url: str, migrated_url: str) -> AsyncIterator[EventBus]:
    async with EventBus(redis_url, database=migrated_url, history=A_YEAR) as bus:
        yield bus


@pytest.fixture
async def sql(migrated_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(migrated_url)
    yield connection
    await connection.close()


async def recorded(bus: EventBus, count: int) -> list[str]:
    """Ids of what is recorded, as soon as it is so many."""

    async def enough() -> bool:
        return await bus.history.count(ALL) >= count

    await eventually(enough)
    return [found.envelope.id for found in await bus.history.select(ALL, limit=count + 10)]


async def settled(bus: EventBus) -> None:
    """Until the group has nothing left to do."""

    async def done() -> bool:
        states = await bus.transport.inspect(await bus.transport.find_streams())
        mine = [group for state in states for group in state.groups if group.name == "history"]
        return bool(mine) and not any(group.lag or group.pending for group in mine)

    await eventually(done)


async def dead(bus: EventBus, stream: str) -> list[str]:
    return [letter.error for letter in await bus.transport.dead_letters(stream)]


def at(moment: datetime) -> Envelope:
    """An event that was made then, if one believes its id."""
    head = f"{round(moment.timestamp() * 1000):012x}"
    event_id = f"{head[:8]}-{head[8:]}{uuid7()[13:]}"
    return Envelope(event_id, "invoice.paid", b'{"number":1}')


# What is recorded -----------------------------------------------------------------------------------------------------


async def test_every_event_of_every_stream_is_recorded_as_it_was_published(bus: EventBus) -> None:
    unknown = Envelope(
        *(uuid7(), "stranger.seen", b'{"no":["class","here"]}', "key", "acme", "c-1", "cause", None, "elsewhere", 2),
        *({"a": "b"}, "another-group", 3, True),
    )
    async with working(bus, recorder()):
        receipts = [await bus.publish(Paid(number=n), key=f"i-{n}", organization="acme") for n in range(20)]
        receipts.append(await bus.publish(Sent(), priority=1))
        receipts.append(await bus.publish(Sent(), delay=0.05))
        await recorded(bus, 22)
        await bus.forward([Outgoing(unknown)])  # to a stream that was not there before, of a service that is new
        assert {*await recorded(bus, 23)} == {receipt.id for receipt in receipts} | {unknown.id}
        await settled(bus)
        found = await bus.history.find(unknown.id)
    assert found is not None
    assert found.envelope == unknown


async def test_an_event_that_passes_often_is_recorded_once(bus: EventBus) -> None:
    events = [Envelope(uuid7(), "invoice.paid", b'{"number":1}') for _ in range(30)]
    async with working(bus, recorder()):
        await bus.forward([Outgoing(event) for event in [*events, *events[:10]]])  # within a batch
        assert len(await recorded(bus, 30)) == 30
        await bus.forward([Outgoing(event) for event in [*events[5:], Envelope(uuid7(), "invoice.paid", b"{}")]])
        await settled(bus)
        assert len(await recorded(bus, 31)) == 31
        again = events[0]._replace(only="somebody", replayed=True)
        await bus.forward([Outgoing(again)])
        await settled(bus)
        found = await bus.history.find(again.id)
    assert await bus.history.count(ALL) == 31
    assert found is not None
    assert not found.envelope.replayed, "what was published, and not what was sent again"
    assert await dead(bus, "invoice") == []


async def test_two_that_record_the_same_at_the_same_time_record_it_once(database: Database, bus: EventBus) -> None:
    def passing(event: Envelope) -> Passing:
        return Passing(event, pairs([part if isinstance(part, bytes) else part.encode() for part in encode(event)]))

    events = [Envelope(uuid7(), "invoice.paid", b"{}", key) for key in map(str, range(500))]
    for _ in range(5):
        await asyncio.gather(
            database.recorder.record([passing(event) for event in events]),
            database.recorder.record([passing(event) for event in reversed(events)]),
            database.recorder.record([passing(event) for event in events[::2]]),
        )
    assert await bus.history.count(ALL) == 500


async def test_what_cannot_be_kept_is_a_dead_letter_and_holds_up_nothing(
    bus: EventBus, redis_url: str, sql: asyncpg.Connection
) -> None:
    await sql.execute(
        "CREATE FUNCTION curse() RETURNS trigger AS $$ BEGIN"
        " IF NEW.subject = 'cursed' THEN RAISE EXCEPTION 'cursed' USING ERRCODE = '22023'; END IF; RETURN NEW; END $$"
        " LANGUAGE plpgsql; CREATE TRIGGER curse BEFORE INSERT ON eventbus_events"
        " FOR EACH ROW EXECUTE FUNCTION curse()"
    )
    key = stream_keys("eb", "invoice").stream
    good = {receipt.id for receipt in [await bus.publish(Paid(number=n)) for n in range(40)]}
    async with Redis.from_url(redis_url, socket_timeout=PATIENCE) as client:
        await client.xadd(key, {"nonsense": "yes"})
        await client.xadd(key, {"id": uuid7(), "type": "invoice.paid", "meta": "", "data": b"\x00"})
        await client.xadd(key, {"id": uuid7(), "type": "invoice.paid", "meta": "", "data": b"\xff\xfe"})
    for _ in range(2):
        await bus.publish(Paid(), key="cursed")
    good |= {receipt.id for receipt in [await bus.publish(Paid(number=n)) for n in range(40)]}
    async with working(bus, recorder()):
        assert {*await recorded(bus, 80)} == good
        await settled(bus)
    errors = await dead(bus, "invoice")
    assert len(errors) == 5
    assert sum("cursed" in error for error in errors) == 2
    assert sum("cannot hold" in error for error in errors) == 4
    assert sum(error.startswith("CodecError") for error in errors) == 1


async def test_texts_that_no_index_holds_are_found_all_the_same(bus: EventBus) -> None:
    texts = ["a\0b", "x" * 4_096, "\N{PILE OF POO}" * 4_000]
    async with working(bus, recorder()):
        ids = [(await bus.publish(Paid(number=n), key=text, organization=text)).id for n, text in enumerate(texts)]
        await recorded(bus, 3)
    for text, event_id in zip(texts, ids, strict=True):
        [found] = await bus.history.select(Selection(organization=text, subject=text))
        assert (found.envelope.id, found.envelope.subject, found.envelope.organization) == (event_id, text, text)


# What groups made of them ---------------------------------------------------------------------------------------------


async def executions(bus: EventBus, event_id: str, count: int) -> list[Execution]:
    async def enough() -> list[Execution]:
        found = await bus.history.executions([event_id])
        return found if len(found) >= count else []

    return await eventually(enough)


async def test_what_groups_made_of_an_event_is_recorded(bus: EventBus) -> None:
    group, other = Group("billing", retry=RetryPolicy(attempts=3, backoff=Backoff.fixed(0.01))), Group("other")

    @group.on(Paid)
    async def handle(event: Paid, ctx: Context) -> None:
        await asyncio.sleep(0.02)
        if ctx.attempt == 1:
            raise ValueError("not\0 yet")
        if event.number == 1:
            raise Reject("never")

    waits = iter([True, False])

    @other.on(Paid)
    async def wait(event: Paid, ctx: Context) -> None:
        if event.number == 0 and next(waits):
            raise SnoozeFor(0.01)

    async with working(bus, group, other, recorder()):
        good, bad = [(await bus.publish(Paid(number=n))).id for n in range(2)]
        told = await executions(bus, good, 4)
        died = await executions(bus, bad, 3)
    mine = [each for each in told if each.group == "billing"]
    assert [(each.outcome, each.attempt) for each in mine] == [(Ending.FAILED, 1), (Ending.COMPLETED, 2)]
    assert [each.error for each in mine] == ["ValueError: not yet", None]
    assert all(0.015 <= each.seconds < 5 for each in mine)
    assert abs(mine[0].finished_at.timestamp() - unix_ms(good) / 1000) < 30
    assert [each.outcome for each in told if each.group == "other"] == [Ending.SNOOZED, Ending.COMPLETED]
    assert [(each.outcome, each.error) for each in died if each.group == "billing"] == [
        (Ending.FAILED, "ValueError: not yet"),
        (Ending.DEAD, "Reject: never"),
    ]
    assert {each.group for each in (*told, *died)} == {"billing", "other"}, "that it was recorded is no news"


async def test_what_a_dead_worker_did_not_write_down_is_told_from_the_inbox(bus: EventBus) -> None:
    event_id = uuid7()
    async with bus.transactions.inbox("billing", event_id, Origin()) as tx:
        await tx.connection.execute("SELECT 1")
    [told] = await bus.history.executions([event_id])
    assert (told.group, told.outcome, told.seconds, told.attempt) == ("billing", Ending.COMPLETED, 0.0, 1)
    database = bus.database
    assert database is not None
    ended = Execution(event_id, "billing", 1, Ending.COMPLETED, 0.5, None, told.finished_at + timedelta(seconds=1))
    await database.recorder.note([(uuid7(), ended)])
    assert await bus.history.executions([event_id]) == [ended]


async def test_an_execution_that_is_written_again_is_there_once(bus: EventBus) -> None:
    database = bus.database
    assert database is not None
    event_id, known = uuid7(), uuid7()
    ended = Execution(event_id, "billing", 1, Ending.COMPLETED, 0.5, None, datetime.now(UTC))
    await database.recorder.note([(known, ended)])
    await database.recorder.note([(known, ended), (uuid7(), ended._replace(group="other"))])
    assert {each.group for each in await bus.history.executions([event_id])} == {"billing", "other"}
    assert len(await bus.history.executions([event_id])) == 2


# Where it is kept, and for how long -----------------------------------------------------------------------------------


async def children(sql: asyncpg.Connection) -> set[str]:
    rows = await sql.fetch("SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE relkind = 'r'")
    return {row["relname"] for row in rows}


async def test_a_month_has_a_partition_before_it_begins_and_what_is_far_off_has_none(
    bus: EventBus, sql: asyncpg.Connection
) -> None:
    this = partitions.month_of(datetime.now(UTC))
    near = [partitions.months_from(this, count) for count in (-12, -3, 0, 1, 2)]
    far = [datetime(1971, 5, 3, tzinfo=UTC), partitions.months_from(this, 3), datetime(2500, 1, 1, tzinfo=UTC)]
    events = [at(month) for month in (*near, *far)]
    async with working(bus, recorder()):
        await bus.forward([Outgoing(event) for event in events])
        assert {*await recorded(bus, 7)} >= {event.id for event in events} - {events[5].id}
    names = {f"eventbus_events_{month:%Y_%m}" for month in near} | {"eventbus_events_default"}
    assert {name for name in await children(sql) if name.startswith("eventbus_events")} == names
    later = await sql.fetch("SELECT event_id::text FROM eventbus_events_default")
    assert {row["event_id"] for row in later} >= {event.id for event in events[6:]}
    for event in events[:5]:
        assert await bus.history.find(event.id) is not None


async def test_what_was_made_ahead_of_its_month_moves_when_that_comes(
    bus: EventBus, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = partitions.months_from(partitions.month_of(datetime.now(UTC)), 4)
    events = [at(ahead), at(partitions.months_from(ahead, 1) - timedelta(milliseconds=1))]
    beyond = at(partitions.months_from(ahead, 1))
    async with working(bus, recorder()):
        await bus.forward([Outgoing(event) for event in (*events, beyond)])
        await recorded(bus, 3)
    assert await sql.fetchval("SELECT count(*) FROM eventbus_events_default") == 3
    monkeypatch.setattr(partitions, "MONTHS_AHEAD", 4)
    for _ in range(2):
        async with sql.transaction():
            await partitions.make(sql, [ahead])
    assert await sql.fetchval("SELECT count(*) FROM eventbus_events_default") == 1
    assert await sql.fetchval(f"SELECT count(*) FROM eventbus_events_{ahead:%Y_%m}") == 2
    assert {*await recorded(bus, 3)} == {event.id for event in (*events, beyond)}


async def test_months_are_dropped_when_they_have_been_kept_for_long_enough(
    bus: EventBus, database: Database, sql: asyncpg.Connection
) -> None:
    now = datetime.now(UTC)
    old, young, ancient = at(now - timedelta(days=200)), at(now - timedelta(days=20)), at(now - timedelta(days=4000))
    async with working(bus, recorder()):
        await bus.forward([Outgoing(event) for event in (old, young)])
        await recorded(bus, 2)
    ended = Execution(old.id, "billing", 1, Ending.COMPLETED, 0.5, None, now)
    await database.recorder.note([(uuid7(), ended), (uuid7(), ended._replace(event_id=ancient.id))])
    await database.recorder.expire(timedelta(days=1_000_000))
    assert await bus.history.count(ALL) == 2
    await database.recorder.expire(timedelta(days=100))
    assert [found.envelope.id for found in await bus.history.select(ALL)] == [young.id]
    assert await bus.history.executions([old.id, ancient.id]) == []
    assert not {name for name in await children(sql) if name.endswith(f"{now - timedelta(days=200):%Y_%m}")}
    assert f"eventbus_events_{now:%Y_%m}" in await children(sql)


async def test_whoever_records_drops_what_is_over(
    redis_url: str, migrated_url: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording_group, "INTERVAL", 0.1)
    event = at(datetime.now(UTC) - timedelta(days=200))
    following = partitions.months_from(partitions.month_of(datetime.now(UTC)), 1)

    async def prepared() -> bool:
        return f"eventbus_executions_{following:%Y_%m}" in await children(sql)

    async with (
        EventBus(redis_url, database=migrated_url, history=timedelta(days=100)) as bus,
        working(bus, recorder()),
    ):
        await eventually(prepared)
        await bus.forward([Outgoing(event)])
        await settled(bus)

        async def gone() -> bool:
            return not await bus.history.count(ALL)

        await eventually(gone)


async def test_partitions_are_made_by_several_at_once_while_others_write(
    database: Database, bus: EventBus, migrated_url: str
) -> None:
    others = [Database(migrated_url, pool_size=2) for _ in range(4)]
    for other in others:
        await other.connect()
    try:
        this = partitions.month_of(datetime.now(UTC))
        ended = [
            Execution(at(partitions.months_from(this, -n)).id, "billing", 1, Ending.COMPLETED, 0.1, None, this)
            for n in range(12)
        ]
        await asyncio.gather(*(other.recorder.note([(uuid7(), each) for each in ended]) for other in others))
        assert len(await bus.history.executions([each.event_id for each in ended])) == 48
    finally:
        for other in others:
            await other.close()


# On and off -----------------------------------------------------------------------------------------------------------


async def test_nothing_is_recorded_where_history_is_off(redis_url: str, migrated_url: str) -> None:
    group, handled = Group("billing"), asyncio.Event()

    @group.on(Paid)
    async def handle(event: Paid, ctx: Context) -> None:
        handled.set()

    async with EventBus(redis_url, database=migrated_url) as bus:
        with pytest.raises(ConfigurationError, match="EVENTBUS_HISTORY_DAYS"):
            Worker(bus, [recorder()])
        async with working(bus, group, recorder()):
            receipt = await bus.publish(Paid())
            await asyncio.wait_for(handled.wait(), PATIENCE)
        assert await bus.history.executions([receipt.id]) == []
        [state] = await bus.transport.inspect(["invoice"])
        assert [each.name for each in state.groups] == ["billing"], "a group that is not there holds nothing up"


def test_the_switch_says_what_is_wrong_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="needs database"):
        EventBus("memory://", history=A_YEAR)
    with pytest.raises(ConfigurationError, match="above 0"):
        EventBus("memory://", database="postgresql://localhost/x", history=timedelta())
    assert Settings().history == A_YEAR
    for text in ("", "0"):
        monkeypatch.setenv("EVENTBUS_HISTORY_DAYS", text)
        assert Settings().history is None
    monkeypatch.setenv("EVENTBUS_HISTORY_DAYS", "0.5")
    assert Settings().history == timedelta(hours=12)
    monkeypatch.setenv("EVENTBUS_HISTORY_DAYS", "a week")
    with pytest.raises(ConfigurationError, match="history_days"):
        Settings()


async def test_a_stop_gives_back_what_waits_for_postgresql_and_an_abort_does_not_reach_a_batch(
    bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, tried = bus.database, asyncio.Event()
    assert isinstance(database, Database)

    async def refuse(_events: object) -> None:
        tried.set()
        raise OSError("no space left on device")

    right: Callable[..., Awaitable[None]] = database.recorder.record
    monkeypatch.setattr(database.recorder, "record", refuse)
    receipts = [await bus.publish(Paid(number=n)) for n in range(10)]
    with capture_logs() as logs:
        async with working(bus, recorder()):
            await asyncio.wait_for(tried.wait(), PATIENCE)
            await bus.events.abort(receipts[0].id)
    assert len([line for line in logs if line["event"] == "failed, will retry"]) == 1, "once for all of them"
    assert await dead(bus, "invoice") == []
    monkeypatch.setattr(database.recorder, "record", right)
    async with working(bus, recorder()):
        assert {*await recorded(bus, 10)} == {receipt.id for receipt in receipts}
        await settled(bus)
