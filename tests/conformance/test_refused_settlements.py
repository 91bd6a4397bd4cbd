"""What Redis will not settle holds up nothing else; a server that takes everything again gets it."""

import asyncio
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from eventbus import Context, Event, EventBus, Group, Reject, RetryPolicy
from eventbus.contract.delivery import Ack, Dead, Delivery, Outcome, Release, Retry, Settlement, Snooze
from eventbus.contract.retention import Retention
from eventbus.redis import RedisTransport, settling
from eventbus.redis.dead_letters import MOST_BYTES, MOST_FIELDS
from eventbus.redis.links import Links, ReplyError
from tests.samples import FAILED, consumer, nothing_left, numbers, outgoing, receive, reclaim, settle
from tests.waiting import PATIENCE, eventually, until
from tests.working import working

ANN = consumer("ann")
DEAD = "eb:{order}:dead"
LANE = "eb:{order}:stream"


class Placed(Event, type="order.refusable"):
    number: int


async def settle_all(transport: RedisTransport, deliveries: Sequence[Delivery], *outcomes: Outcome) -> list[int]:
    """The numbers of those that were refused."""
    pairs = zip(deliveries, outcomes, strict=True)
    refusals = await transport.settle([Settlement(*pair) for pair in pairs])
    return numbers(refusal.settlement.delivery for refusal in refusals)


@pytest.fixture
async def five(redis_transport: RedisTransport) -> list[Delivery]:
    await redis_transport.append(outgoing(*range(5)))
    return await receive(redis_transport, ANN, 5)


async def test_of_a_batch_all_is_settled_but_what_is_refused(
    redis_transport: RedisTransport, raw: Links, five: list[Delivery]
) -> None:
    await raw.execute("SET", DEAD, "x")
    outcomes: list[Outcome] = [Ack(), Dead(FAILED, 1), Retry(0.0, FAILED), Ack(), Release()]
    assert await settle_all(redis_transport, five, *outcomes) == [1]
    assert sorted(numbers(await reclaim(redis_transport, consumer("bob"), 2))) == [2, 4]
    assert (await redis_transport.tidy("order", Retention())).left == 5, "nor is anything else kept from its work"
    assert [state.dead for state in await redis_transport.inspect(["order"])] == [0]
    [refusal] = await redis_transport.settle([Settlement(five[1], Dead(FAILED, 1))])
    assert f"{DEAD} is a string and should be a stream: move it away, e.g. with RENAME" in str(refusal.error)
    await raw.execute("DEL", DEAD)
    await settle(redis_transport, five[1:2], Dead(FAILED, 1))
    assert len(await redis_transport.dead_letters("order")) == 1


async def test_what_no_command_can_be_made_of_is_refused_alone(
    redis_transport: RedisTransport, five: list[Delivery]
) -> None:
    outcomes: list[Outcome] = [Ack(), Retry(float("nan"), FAILED), Snooze(1e306), Retry(1e306, FAILED), Ack()]
    assert await settle_all(redis_transport, five, *outcomes) == [1]
    dead = Dead(FAILED, attempts=object())  # type: ignore[arg-type]  # is made, and cannot be sent
    assert await settle_all(redis_transport, five[1:3], dead, Ack()) == [1]


async def test_records_of_another_type_are_told_and_keep_no_ack_back(
    redis_transport: RedisTransport, raw: Links, five: list[Delivery]
) -> None:
    for name in ("retry", "failures", "crashes"):
        await raw.execute("SET", f"eb:{{order}}:billing:{name}", "x")
    outcomes = (Ack(), Dead(FAILED, 1), Retry(0.0, FAILED), Release(), Ack())
    assert await settle_all(redis_transport, five, *outcomes) == [2, 3]
    assert (await raw.execute("XPENDING", LANE, "billing"))[0] == 2


async def test_garbage_in_a_record_keeps_no_event_from_being_handed_out(
    redis_transport: RedisTransport, raw: Links, five: list[Delivery]
) -> None:
    await settle(redis_transport, five[:3], Retry(0.0, FAILED))
    names = [delivery.entry_id for delivery in five]
    await raw.execute("HSET", "eb:{order}:billing:failures", names[0], "many", names[1], "")
    await raw.execute("HSET", "eb:{order}:billing:crashes", names[0], "x", names[2], "1.5e400", names[4], "?")
    await raw.execute("ZADD", "eb:{order}:billing:retry", 1, "no-entry", 1, "@", 1, "1-1@99")
    heir = consumer("heir", lease=0.1)
    found = await reclaim(redis_transport, heir, 5)
    assert sorted(numbers(found)) == [0, 1, 2, 3, 4]
    await settle(redis_transport, found, Retry(0.0, FAILED))
    again = await reclaim(redis_transport, heir, 5)
    assert {delivery.failures for delivery in again} <= {1, 2}
    await settle(redis_transport, again, Ack())
    assert await nothing_left(redis_transport, heir)


async def test_a_foreign_entry_of_any_size_can_be_buried(redis_transport: RedisTransport, raw: Links) -> None:
    many = [part for number in range(4_100) for part in (f"field{number}", number)]
    await raw.execute("XADD", LANE, "*", *many)
    await raw.execute("XADD", LANE, "*", "first", "1", "large", b"\xff" * (MOST_BYTES + 1), "last", "3")
    await settle(redis_transport, await receive(redis_transport, ANN, 2), Dead(FAILED, 0))
    wide, large = await redis_transport.dead_letters("order")
    assert wide.envelope is large.envelope is None
    assert len(wide.fields) == MOST_FIELDS + 1
    assert "kept in part: 1000 of 4100 fields" in wide.error
    assert wide.fields[b"dead.rest"].startswith(b"field1000=1000\nfield1001=1001\n")
    assert large.fields[b"first"] == b"1"
    assert set(large.fields) == {b"first", b"dead.rest"}
    assert len(large.fields[b"dead.rest"]) < 100_000


async def test_a_dead_letter_by_somebody_else_can_be_read(redis_transport: RedisTransport, raw: Links) -> None:
    await raw.execute("XADD", DEAD, "9223372036854775807-0", "dead.attempts", "many", "dead.error", b"\xff")
    [letter] = await redis_transport.dead_letters("order")
    assert (letter.group, letter.attempts, letter.error) == ("", 0, "\\xff")


async def test_a_worker_goes_on_beside_what_cannot_be_settled(
    any_redis_url: str, raw: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventbus.consuming.settler.UNSETTLED_LIMIT", 50)
    monkeypatch.setattr("eventbus.consuming.settler.FIRST_REST", 0.1)
    group, handled = Group("billing", retry=RetryPolicy(attempts=1)), []

    @group.on(Placed)
    async def handle(event: Placed, _ctx: Context) -> None:
        handled.append(event.number)
        if event.number % 20 == 0:
            raise Reject("no")

    async with EventBus(any_redis_url) as bus:
        await raw.execute("SET", DEAD, "x")
        with capture_logs() as logs:
            async with working(bus, group):
                await bus.publish_many([Placed(number=number) for number in range(200)])
                await until(lambda: len(handled) == 200, timeout=PATIENCE)
                await bus.publish_many([Placed(number=number) for number in range(201, 220)])
                await until(lambda: len(handled) == 219, timeout=PATIENCE)

                async def pending() -> int:
                    return int((await raw.execute("XPENDING", LANE, "billing"))[0])

                async def ten_are_left() -> bool:
                    return await pending() == 10

                await eventually(ten_are_left, timeout=PATIENCE)
                await asyncio.sleep(0.3)  # a few tries, of which nothing more is told
                told = [line for line in logs if "cannot be settled" in line["event"]]
                assert len(told) == 10
                assert all(line["event_id"] and line["group"] == "billing" and DEAD in line["reason"] for line in told)
                await raw.execute("DEL", DEAD)

                async def none_are_left() -> bool:
                    return await pending() == 0

                await eventually(none_are_left, timeout=PATIENCE)
        assert len(handled) == 219, "none ran again"
        assert len(await bus.transport.dead_letters("order")) == 10


async def test_a_worker_that_stops_waits_for_nothing_that_is_refused(
    any_redis_url: str, raw: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventbus.consuming.consumer.SETTLE_GRACE", 600.0)
    group = Group("billing", retry=RetryPolicy(attempts=1))
    rejected = asyncio.Event()

    @group.on(Placed)
    async def handle(_event: Placed, _ctx: Context) -> None:
        rejected.set()
        raise Reject("no")

    async with EventBus(any_redis_url) as bus, asyncio.timeout(PATIENCE):
        await raw.execute("SET", DEAD, "x")
        async with working(bus, group):
            await bus.publish(Placed(number=1))
            await rejected.wait()


async def test_a_refused_ack_is_told_of_each_event(redis_transport: RedisTransport, raw: Links) -> None:
    await redis_transport.append(outgoing(*range(3)))
    deliveries = await receive(redis_transport, ANN, 3)
    await raw.execute("RENAME", LANE, f"{LANE}:elsewhere")
    await raw.execute("SET", LANE, "x")
    refusals = await redis_transport.settle([Settlement(delivery, Ack()) for delivery in deliveries])
    assert numbers(refusal.settlement.delivery for refusal in refusals) == [0, 1, 2]
    assert all(isinstance(refusal.error, ReplyError) for refusal in refusals)
    await raw.execute("DEL", LANE)
    await raw.execute("RENAME", f"{LANE}:elsewhere", LANE)
    await settle(redis_transport, deliveries, Ack())
    assert await nothing_left(redis_transport, ANN)


def test_acks_of_several_lanes_are_kept_apart() -> None:
    deliveries = [Delivery(ANN, entry, {}) for entry in ("1-0", "2-0@1", "3-0")]
    lanes = settling.by_lane(deliveries)
    assert {priority: entries for (_, priority), entries in lanes.items()} == {5: ["1-0", "3-0"], 1: ["2-0@1"]}
