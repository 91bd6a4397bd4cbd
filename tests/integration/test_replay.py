"""Events of the store sent again: to one group, once each, at a pace, on record."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from eventbus import (
    ConfigurationError,
    Context,
    Event,
    EventBus,
    Finished,
    Group,
    Phase,
    Reject,
    RetryPolicy,
    Unavailable,
)
from eventbus.contract.broker import Broker
from eventbus.contract.codec import decode
from eventbus.contract.history import Ending, Selection
from eventbus.contract.outgoing import Outgoing
from eventbus.contract.replays import Replay
from eventbus.event import Envelope, uuid7
from eventbus.operating.replaying import NoSuchGroup, Replaying
from tests.samples import consumer, receive
from tests.stored import execution, id_of, partition, record, record_executions
from tests.waiting import PATIENCE, eventually, until
from tests.working import working


class Paid(Event, type="bill.paid"):
    number: int


class Sent(Event, type="bill.sent"):
    number: int


def event(
    number: int, *, name: str = "bill.paid", organization: str = "acme", age: timedelta | None = None
) -> Envelope:
    data = b'{"number":%d}' % number
    event_id = uuid7() if age is None else id_of(datetime.now(UTC) - age)
    return Envelope(event_id, name, data, f"bill-{number}", organization, "c-1")


PAID = [event(number) for number in range(5)]
SENT = event(7, name="bill.sent")
THEIRS = event(8, organization="umbrella")
ELSEWHERE = event(9, name="parcel.lost")


@pytest.fixture
async def bus(redis_url: str, migrated_url: str) -> AsyncIterator[EventBus]:
    """Two groups read the stream `bill`, one the stream `parcel`."""
    async with EventBus(redis_url, database=migrated_url) as bus:
        async with bus.transaction() as tx:
            await partition(tx.connection)
            await record(tx.connection, [*PAID, SENT, THEIRS, ELSEWHERE])
        for stream, group in (("bill", "accounts"), ("bill", "shipping"), ("parcel", "depot")):
            await bus.transport.read(consumer(group=group, stream=stream), 1, 0.0)
        yield bus


async def entries(transport: Broker, group: str, stream: str = "bill") -> list[Envelope]:
    """What waits for a group."""
    deliveries = await transport.read(consumer(group=group, stream=stream), 100, 0.0)
    return [decode(delivery.fields) for delivery in deliveries]


async def kept(bus: EventBus) -> list[Replay]:
    assert bus.database is not None
    return list(await bus.database.replays.latest(10))


async def test_it_goes_to_one_group_as_it_was_and_marked(bus: EventBus) -> None:
    done = await bus.events.replay("accounts", Selection(subject="bill-1"), why="the books were wrong", by="ann")
    assert (done.total, done.done, done.last) == (1, 1, PAID[1].id)
    [found] = await entries(bus.transport, "accounts")
    assert found == PAID[1]._replace(only="accounts", replayed=True)


async def test_no_other_group_handles_it(bus: EventBus) -> None:
    seen: list[tuple[str, int]] = []
    accounts, shipping = Group("accounts"), Group("shipping")

    @accounts.on(Paid)
    async def count(event: Paid, ctx: Context) -> None:
        seen.append(("accounts", event.number))

    @shipping.on(Paid)
    async def ship(event: Paid, ctx: Context) -> None:
        seen.append(("shipping", event.number))

    async with working(bus, accounts, shipping):
        await bus.events.replay("accounts", Selection(types=["bill.paid"], organization="acme"), why="test")
        await bus.publish(Paid(number=99))  # what both have handled stands behind what was replayed
        await until(lambda: {("accounts", 99), ("shipping", 99)} <= set(seen))
    assert [number for group, number in seen if group == "shipping"] == [99]
    assert sorted(number for group, number in seen if group == "accounts") == [0, 1, 2, 3, 4, 99]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Selection(organization="acme"), [*PAID, SENT]),
        (Selection(organization="umbrella"), [THEIRS]),
        (Selection(), [*PAID, SENT, THEIRS]),
        (Selection(types=["bill.sent"]), [SENT]),
        (Selection(ids=[PAID[0].id, PAID[3].id]), [PAID[0], PAID[3]]),
        (Selection(organization="umbrella", ids=[PAID[0].id]), []),
        (Selection(after=PAID[3].id, types=["bill.paid"]), [PAID[4], THEIRS]),
        (Selection(since=PAID[0].time, until=PAID[0].time + timedelta(days=1), subject="bill-2"), [PAID[2]]),
        (Selection(until=PAID[0].time), []),
        (Selection(correlation_id="c-2"), []),
    ],
)
async def test_what_is_wanted_is_sent_and_nothing_else(
    wanted: Selection, expected: list[Envelope], bus: EventBus
) -> None:
    counted = await bus.events.replay("accounts", wanted, why="", dry_run=True)
    assert (counted.total, counted.done) == (len(expected), 0)
    assert await entries(bus.transport, "accounts") == []
    assert await kept(bus) == [], "a dry run leaves no row"
    done = await bus.events.replay("accounts", wanted, why="test")
    assert done.done == len(expected)
    assert [found.id for found in await entries(bus.transport, "accounts")] == [one.id for one in expected]


async def test_what_begins_the_same_is_not_the_same(bus: EventBus) -> None:
    """The columns hold the first 300 characters."""
    long = "b" * 300
    one, other = event(61)._replace(subject=long + "1"), event(61)._replace(subject=long + "2")
    async with bus.transaction() as tx:
        await record(tx.connection, [other, one])
        await tx.connection.execute("UPDATE eventbus_events SET subject = left(subject, 300)")
    await bus.events.replay("accounts", Selection(subject=long + "1"), why="test")
    assert [found.id for found in await entries(bus.transport, "accounts")] == [one.id]


async def test_who_and_why_are_kept(bus: EventBus) -> None:
    await bus.events.replay(
        "accounts", Selection(subject="bill-1", types=["bill.*"]), why="wrong", by="ann", new_ids=True
    )
    await bus.events.replay("shipping", Selection(ids=[SENT.id]), why="lost")
    last, first = await kept(bus)
    assert (first.by, first.why, first.group, first.new_ids, first.source) == (
        "ann",
        "wrong",
        "accounts",
        True,
        "history",
    )
    assert {"subject": "bill-1", "types": ["bill.*"]}.items() <= first.filter.items()
    assert (first.matched, first.replayed, first.last) == (1, 1, PAID[1].id)
    assert first.ended_at is not None
    assert "@" in last.by, "the user of this process"
    with pytest.raises(ConfigurationError, match="reason"):
        await bus.events.replay("accounts", Selection(), why=" ")


async def test_a_group_that_would_never_take_it_is_refused(bus: EventBus) -> None:
    with pytest.raises(NoSuchGroup, match=r"'acounts'.*accounts, depot, shipping"):
        await bus.events.replay("acounts", Selection(), why="typo")
    for wanted in (
        Selection(types=["parcel.lost"]),
        Selection(types=["bill.*", "parcel.*"]),
        Selection(ids=[ELSEWHERE.id]),
    ):
        with pytest.raises(NoSuchGroup, match="does not read parcel"):
            await bus.events.replay("accounts", wanted, why="wrong group")
    assert await entries(bus.transport, "accounts") == []
    assert await kept(bus) == []


async def test_with_new_ids_they_are_other_events_that_the_old_ones_caused(bus: EventBus) -> None:
    await bus.events.replay("accounts", Selection(subject="bill-1"), why="test", new_ids=True)
    [found] = await entries(bus.transport, "accounts")
    assert found.id > PAID[1].id
    assert found._replace(id=PAID[1].id, causation_id=None) == PAID[1]._replace(only="accounts", replayed=True)
    assert found.causation_id == PAID[1].id


async def test_copies_that_are_recorded_meanwhile_are_not_copied_again(
    bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = bus.transport.append

    async def recorded(outgoing: list[Outgoing], *, again: bool = False) -> object:
        async with bus.transaction() as tx:
            await record(tx.connection, [item.envelope for item in outgoing])
        return await append(outgoing, again=again)

    monkeypatch.setattr(bus.transport, "append", recorded)
    monkeypatch.setattr("eventbus.operating.replaying.PAGE", 2)
    async with asyncio.timeout(PATIENCE):
        done = await bus.events.replay("accounts", Selection(types=["bill.paid"]), why="test", new_ids=True)
    assert done.done == done.total == 6


async def test_no_more_a_second_than_was_said(bus: EventBus) -> None:
    async with bus.transaction() as tx:
        await record(tx.connection, [event(number) for number in range(100, 160)])
    began = time.monotonic()
    done = await bus.events.replay("accounts", Selection(types=["bill.paid"]), why="test", rate=60)
    took = time.monotonic() - began
    assert done.done == 66
    assert took >= 60 / 60 - 0.1, "66 at 60 a second, the first six of them at once"
    with pytest.raises(ConfigurationError, match="rate"):
        await bus.events.replay("accounts", Selection(), why="test", rate=0)


async def test_one_that_is_cut_short_says_how_far_it_got_and_goes_on_from_there(
    bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, calls = bus.transport.append, 0

    async def fails(outgoing: list[Outgoing], *, again: bool = False) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Unavailable("Redis", "gone")
        return await append(outgoing, again=again)

    monkeypatch.setattr("eventbus.operating.replaying.PAGE", 2)
    monkeypatch.setattr(bus.transport, "append", fails)
    wanted = Selection(types=["bill.paid"])
    assert bus.database is not None
    replaying = Replaying(bus.transport, bus.database.replays, "accounts", wanted)
    await replaying.plan()
    with pytest.raises(Unavailable):
        await replaying.run(why="test")
    assert (replaying.result.done, replaying.result.last) == (4, PAID[3].id)
    [cut] = await kept(bus)
    assert (cut.matched, cut.replayed, cut.last, cut.ended_at) == (6, 4, PAID[3].id, None)
    rest = await bus.events.replay("accounts", Selection(types=["bill.paid"], after=cut.last), why="the rest")
    assert rest.done == 2
    assert [found.id for found in await entries(bus.transport, "accounts")] == [one.id for one in [*PAID, THEIRS]]


async def test_one_that_is_cancelled_is_on_record_too(bus: EventBus) -> None:
    running = asyncio.create_task(bus.events.replay("accounts", Selection(types=["bill.paid"]), why="test", rate=9))
    await receive(bus.transport, consumer(group="accounts", stream="bill"), 2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    [cut] = await kept(bus)
    assert cut.replayed in {1, 2}, "of the last one nobody may know whether it was sent"
    assert (cut.last, cut.ended_at) == (PAID[cut.replayed - 1].id, None)


async def test_an_effect_that_has_committed_is_not_repeated_and_with_new_ids_it_is(bus: EventBus) -> None:
    handled: list[Finished] = []
    accounts = Group("accounts", concurrency=5)
    accounts.on_completed(handled.append)

    @accounts.on(Paid)
    async def book(event: Paid, ctx: Context) -> None:
        async with ctx.transaction() as tx:
            await tx.connection.execute("INSERT INTO bookings VALUES ($1)", event.number)

    async with bus.transaction() as tx:
        await tx.connection.execute("CREATE TABLE bookings (number int)")
    wanted = Selection(types=["bill.paid"], organization="acme")

    async def booked() -> list[int]:
        async with bus.transaction() as tx:
            rows = await tx.connection.fetch("SELECT number FROM bookings ORDER BY 1")
            return [row["number"] for row in rows]

    async with working(bus, accounts):
        # Twice at once while the group runs, and a third time.
        await asyncio.gather(*(bus.events.replay("accounts", wanted, why="test") for _ in range(2)))
        await bus.events.replay("accounts", wanted, why="test")
        await until(lambda: len(handled) == 15)
        assert await booked() == [0, 1, 2, 3, 4]
        await bus.events.replay("accounts", wanted, why="test", new_ids=True)
        await until(lambda: len(handled) == 20)
        assert await booked() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


async def test_copies_are_none_of_what_happened(bus: EventBus) -> None:
    """Otherwise the copy that one group was sent would be news to another, which has handled the original."""
    metadata = {"only": "shipping", "x": '"only":"shipping"'}
    original = event(60)._replace(metadata=metadata)
    copies = [event(60)._replace(only=group, replayed=True, metadata=metadata) for group in ("accounts", 'ship"ping')]
    newer = event(60)._replace(only="shipping", version=3, replayed=True)
    mine, *_ = copies
    async with bus.transaction() as tx:
        await record(tx.connection, [original, *copies, newer])
    wanted = Selection(subject="bill-60")
    done = await bus.events.replay("accounts", wanted, why="test")
    assert (done.matched, done.done) == ({"bill.paid": 2}, 2)
    assert {one.id for one in await entries(bus.transport, "accounts")} == {original.id, mine.id}
    done = await bus.events.replay("accounts", wanted, why="test", new_ids=True)
    assert (done.matched, done.done) == ({"bill.paid": 1}, 1), "two would be four the next time"
    assert [one.causation_id for one in await entries(bus.transport, "accounts")] == [original.id]
    done = await bus.events.replay("shipping", wanted, why="test")
    given = [one.id for one in await entries(bus.transport, "shipping") if one.only == "shipping"]
    assert given == [original.id, newer.id]


OLD = timedelta(days=10)


async def test_what_the_inbox_has_forgotten_is_left_out_unless_it_is_asked_for(bus: EventBus) -> None:
    """Its row is pruned a week after the effect: only the store may know that there was one."""
    unknown, completed, given_up, remembered = old = [event(number, age=OLD) for number in range(20, 24)]
    async with bus.transaction() as tx:
        await record(tx.connection, old)
        told = [
            execution(completed, "accounts"),
            execution(given_up, "accounts", Ending.DEAD),
            execution(given_up, "shipping"),
            execution(remembered, "accounts"),
        ]
        await record_executions(tx.connection, told)
        for one, days in ((completed, 9), (remembered, 1)):
            await tx.connection.execute(
                "INSERT INTO eventbus_inbox VALUES ($1, 'accounts', now() - make_interval(days => $2))", one.id, days
            )
    wanted = Selection(ids=[one.id for one in old])
    done = await bus.events.replay("accounts", wanted, why="test")
    assert (done.matched, done.forgotten, done.done) == ({"bill.paid": 4}, 2, 2)
    assert {found.id for found in await entries(bus.transport, "accounts")} == {given_up.id, remembered.id}
    done = await bus.events.replay("accounts", wanted, why="test", forgotten=True)
    assert (done.forgotten, done.done) == (0, 4)
    assert unknown.id in {found.id for found in await entries(bus.transport, "accounts")}
    done = await bus.events.replay("accounts", wanted, why="test", new_ids=True)
    assert (done.forgotten, done.done) == (0, 4)


async def test_nothing_is_sent_that_is_not_on_record(bus: EventBus, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(_replay: Replay) -> None:
        raise Unavailable("PostgreSQL", "gone")

    assert bus.database is not None
    monkeypatch.setattr(bus.database.replays, "keep", away)
    with pytest.raises(Unavailable):
        await bus.events.replay("accounts", Selection(), why="test")
    assert await entries(bus.transport, "accounts") == []


async def test_the_state_of_a_tracked_event_is_that_of_its_replay(bus: EventBus) -> None:
    accounts, broken = Group("accounts", track=True, retry=RetryPolicy(attempts=1)), False

    @accounts.on(Paid)
    async def book(event: Paid, ctx: Context) -> None:
        if broken:
            raise Reject("closed")

    async with working(bus, accounts):
        receipt = await bus.publish(Paid(number=70), key="bill-70")
        assert await phase(bus, receipt.id, Phase.COMPLETED)
        async with bus.transaction() as tx:
            await record(tx.connection, [event(70)._replace(id=receipt.id)])
        broken = True
        await asyncio.sleep(0.002)  # what was made in this very millisecond is not replayed
        await bus.events.replay("accounts", Selection(ids=[receipt.id]), why="test")
        assert await phase(bus, receipt.id, Phase.FAILED)


async def phase(bus: EventBus, event_id: str, wanted: Phase) -> bool:
    async def reached() -> bool:
        return (await bus.groups.state("accounts", event_id)).phase is wanted

    return await eventually(reached)


async def test_a_publish_that_is_repeated_behind_a_replay_is_still_stored_once(bus: EventBus) -> None:
    first = event(51)
    await bus.transport.append([Outgoing(first)])
    async with bus.transaction() as tx:
        await record(tx.connection, [first])
    await bus.events.replay("accounts", Selection(ids=[first.id]), why="test")
    await bus.transport.append([Outgoing(first)], again=True)
    assert [one.only for one in await entries(bus.transport, "accounts")] == [None, "accounts"]


async def test_a_replay_is_no_repetition_of_a_publish(bus: EventBus) -> None:
    """The first entry is still there: a transport that looked for it would store nothing."""
    first = event(50)
    await bus.transport.append([Outgoing(first)])
    async with bus.transaction() as tx:
        await record(tx.connection, [first])
    await bus.events.replay("accounts", Selection(ids=[first.id]), why="test")
    found = [decode(one.fields) for one in await receive(bus.transport, consumer(group="accounts", stream="bill"), 2)]
    assert [(one.id, one.only) for one in found] == [(first.id, None), (first.id, "accounts")]
