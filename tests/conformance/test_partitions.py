"""A stream of several logs: as one stream to whoever publishes and handles, whatever happens to the number of logs."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from eventbus.contract.dedupe import Once
from eventbus.contract.delivery import Ack, Dead, Delivery, Reclaimed, Release, Retry, Subscription
from eventbus.contract.outgoing import Outgoing
from eventbus.contract.partitions import log_of, logs_of
from eventbus.contract.retention import Retention
from eventbus.errors import Unavailable
from eventbus.event import Status
from eventbus.redis import RedisTransport
from eventbus.redis.inspection import read_logs, read_streams
from eventbus.redis.keys import stream_keys
from eventbus.redis.reading import Reader
from tests.conformance.reach import Everywhere
from tests.samples import FAILED, STREAM, consumer, envelope, nothing_left, numbers, receive, reclaim, settle
from tests.waiting import eventually, until

COUNT = 8
LEASE = 0.3
ANN, BOB = consumer("ann"), consumer("bob")

Make = Callable[..., RedisTransport]


@pytest.fixture
async def make(any_redis_url: str) -> AsyncIterator[Make]:
    """Transports of one namespace, each as another process has it."""
    made: list[RedisTransport] = []
    namespace = f"test-{uuid4().hex}"

    def transport(count: int = 1) -> RedisTransport:
        made.append(RedisTransport(any_redis_url, namespace=namespace, partitions={STREAM: count}))
        return made[-1]

    yield transport
    for transport_ in made:
        await transport_.close()


@pytest.fixture
async def divided(make: Make) -> RedisTransport:
    transport = make(COUNT)
    await transport.connect()
    return transport


def said(*numbers: int, keys: int = 40) -> list[Outgoing]:
    return [Outgoing(envelope(number, subject=f"key-{number % keys}")) for number in numbers]


async def lengths(transport: RedisTransport, count: int = COUNT) -> list[int]:
    states = await read_logs(transport._router, transport._namespace, logs_of(STREAM, count))
    return [state.length for state in states]


async def everything(transport: RedisTransport, subscription: Subscription, count: int) -> list[int]:
    """So many events, in the order in which they were handed out; each is settled before more are read."""
    order: list[int] = []
    while len(order) < count:
        found = await receive(transport, subscription, 1)
        found += await transport.read(subscription, 20, 0.01)
        order += numbers(found)
        await settle(transport, found, Ack())
    return order


async def test_all_is_handed_out_once_and_the_events_of_a_key_in_order(divided: RedisTransport) -> None:
    await divided.append(said(*range(400)))
    order = await everything(divided, ANN, 400)
    assert sorted(order) == list(range(400))
    for key in range(40):
        mine = [number for number in order if number % 40 == key]
        assert mine == sorted(mine)
    assert await nothing_left(divided, ANN)


async def test_a_key_has_one_log_and_events_without_one_are_spread(divided: RedisTransport) -> None:
    await divided.append([Outgoing(envelope(number, subject="a")) for number in range(50)])
    assert sorted(await lengths(divided)) == [0] * (COUNT - 1) + [50]
    await divided.append([Outgoing(envelope(number)) for number in range(400)])
    assert min(await lengths(divided)) > 20


async def test_one_event_after_the_other_is_handed_out_as_it_comes(divided: RedisTransport) -> None:
    """Behind each look nothing is left to look at: the server says when there is."""
    for number in range(60):
        reading = asyncio.create_task(divided.read(ANN, 10, 60))
        [status] = await divided.append(said(number))
        assert status is Status.STORED
        found = await reading
        assert numbers(found) == [number]
        await settle(divided, found, Ack())


async def test_groups_of_one_process_are_each_told(divided: RedisTransport) -> None:
    groups = [consumer(group="billing"), consumer(group="shipping")]
    for number in range(20):
        reads = [asyncio.create_task(divided.read(each, 10, 60)) for each in groups]
        await divided.append(said(number))
        for found in await asyncio.gather(*reads):
            assert numbers(found) == [number]
    await divided.unsubscribe(groups[:1])
    reading = asyncio.create_task(divided.read(groups[1], 10, 60))
    await divided.append(said(20))
    assert numbers(await reading) == [20]


async def test_two_readers_share_all_logs(make: Make, divided: RedisTransport) -> None:
    other = make()
    await other.connect()
    await divided.append(said(*range(200)))
    seen: list[int] = []

    async def read(transport: RedisTransport, subscription: Subscription) -> None:
        while len(seen) < 200:
            found = await transport.read(subscription, 7, 0.02)
            seen.extend(numbers(found))
            await settle(transport, found, Ack())

    await asyncio.gather(read(divided, ANN), read(other, BOB))
    assert sorted(seen) == list(range(200))


async def test_a_credit_is_never_exceeded(divided: RedisTransport) -> None:
    await divided.append(said(*range(100)))
    for credit in (1, 2, 3, COUNT, 20):
        assert 0 < len(await divided.read(ANN, credit, 1)) <= credit
    assert await divided.reclaim(ANN, 0) is not None


async def test_retries_leases_and_what_is_scheduled_come_from_every_log(make: Make, divided: RedisTransport) -> None:
    ann, bob = consumer("ann", lease=LEASE), consumer("bob", lease=LEASE)
    await divided.append([item._replace(delay=0.2) for item in said(*range(40))])
    assert await divided.read(ann, 100, 0.01) == []

    async def read() -> list[int]:
        await divided.reclaim(ann, 0)  # it promotes
        found.extend(await divided.read(ann, 100, 0.01))
        return [len(found)] if len(found) == 40 else []

    found = await divided.read(ann, 100, 0.01)
    await eventually(read)
    await settle(divided, found[:10], Retry(0.1, FAILED))
    await settle(divided, found[10:20], Release())
    other = make()
    await other.connect()
    taken = await reclaim(other, bob, 40)  # bob takes the retries; ann does not renew the others
    assert sorted(numbers(taken)) == list(range(40))
    assert sorted(delivery.failures for delivery in taken) == [0] * 30 + [1] * 10
    await settle(other, taken, Ack())
    assert await nothing_left(other, bob)


async def test_a_read_that_waits_can_be_interrupted(divided: RedisTransport) -> None:
    reading = asyncio.create_task(divided.read(ANN, 10, 60))
    await eventually(lambda: interrupted(divided, reading))
    assert await reading == []


async def interrupted(transport: RedisTransport, reading: asyncio.Task[object]) -> bool:
    await transport.interrupt([ANN])
    return reading.done()


async def test_a_lost_connection_loses_nothing(divided: RedisTransport, raw: Everywhere) -> None:
    await divided.append(said(*range(20)))
    before = await receive(divided, ANN, 10)
    reading = asyncio.create_task(divided.read(ANN, 1, 60))
    await raw.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    more = said(*range(20, 40))

    async def rest() -> bool:
        with suppress(Unavailable):  # it is connecting again
            await divided.append(more, again=True)
            after.extend(await divided.read(ANN, 100, 0.1))
        return len(after) == 30

    after = list[Delivery]()
    with suppress(Unavailable):
        after += await reading
    await eventually(rest)
    assert sorted(numbers(before) + numbers(after)) == list(range(40))


# Growing --------------------------------------------------------------------------------------------------------------


async def test_a_stream_grows_while_it_is_used(make: Make) -> None:
    """Whoever was told of fewer reads and writes all the same, as soon as he has seen it."""
    old = make()
    await old.connect()
    await old.append(said(*range(100)))
    assert len(await receive(old, ANN, 30)) == 30
    new = make(COUNT)
    await new.connect()
    await new.append(said(*range(100, 200)))
    rest = await everything(old, ANN, 170)
    assert sorted(numbers(old._readers[ANN].held.values()) + rest) == list(range(200))
    await old.append(said(*range(200, 300)))
    assert sorted(await everything(new, BOB, 100)) == list(range(200, 300))
    assert min(await lengths(new)) > 0


async def test_a_group_that_nobody_works_for_misses_nothing_of_a_new_log(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventbus.redis.tidying.KEEP_AT_LEAST", 0)
    old, new = make(), make(COUNT)
    shipping = consumer(group="shipping")
    await old.connect()
    await old.append(said(0))
    for subscription in (ANN, shipping):
        await settle(old, await receive(old, subscription), Ack())
    await new.connect()
    await new.append(said(*range(1, 101)))
    await everything(new, ANN, 100)
    for _ in range(COUNT):
        await new.tidy(STREAM, Retention(settled=0, settled_count=0))
    assert sorted(await everything(old, shipping, 100)) == list(range(1, 101))


async def test_a_group_is_in_all_logs_before_it_reads_one(divided: RedisTransport) -> None:
    await divided.append(said(*range(100)))
    assert len(await divided.read(ANN, 1, 1)) == 1
    states = await read_logs(divided._router, divided._namespace, logs_of(STREAM, COUNT))
    assert [[group.name for group in state.groups] for state in states] == [[ANN.group]] * COUNT


async def test_it_never_shrinks(make: Make, divided: RedisTransport) -> None:
    await divided.append(said(*range(100)))
    other = make(2)
    await other.connect()
    assert other._partitions.logs(STREAM) == logs_of(STREAM, COUNT)
    assert sorted(await everything(other, ANN, 100)) == list(range(100))


async def test_a_number_that_redis_has_lost_is_told_again(make: Make, divided: RedisTransport, raw: Everywhere) -> None:
    """By whoever knows it: else those that start afterwards would read the first log alone."""
    await raw.execute("DEL", f"{divided._namespace}:partitions")
    await divided._partitions.look()
    await divided.append(said(*range(100)))
    other = make()
    await other.connect()
    assert sorted(await everything(other, ANN, 100)) == list(range(100))


async def test_what_was_stored_before_it_grew_is_not_stored_again(make: Make) -> None:
    old, new = make(2), make(COUNT)
    await old.connect()
    items = said(*range(100))
    later = [item._replace(delay=60.0) for item in said(*range(100, 150))]
    await old.append([*items, *later])
    await new.connect()
    assert Status.SCHEDULED in await new.append([*items, *later], again=True)
    assert await new.append(said(7), again=True) == [Status.STORED]
    assert sum(await lengths(new)) == 101
    [state] = await new.inspect([STREAM])
    assert (state.scheduled, state.partitions) == (50, COUNT)


async def test_dedupe_keys_hold_while_it_grows(make: Make) -> None:
    old, new = make(2), make(COUNT)
    await old.connect()
    keys = [f"once-{number}" for number in range(50)]
    firsts = [Outgoing(envelope(number), once=Once(key)) for number, key in enumerate(keys)]
    assert set(await old.append(firsts)) == {Status.STORED}
    await new.connect()
    for first, key in zip(firsts, keys, strict=True):
        again = Outgoing(envelope(), once=Once(key))
        assert new.begin(again) is None or new._partitions.former_log_of(again) is None
        assert await new.append([again]) == [Status.DUPLICATE]
        assert await new.holder(again.envelope, Once(key)) == first.envelope.id
    assert sum(await lengths(new)) == 50


async def test_a_dedupe_key_is_replaced_where_it_is_held(make: Make) -> None:
    old, new = make(2), make(COUNT)
    await old.connect()
    firsts = [Outgoing(envelope(number), 60.0, once=Once(f"once-{number}", replace=True)) for number in range(20)]
    await old.append(firsts)
    await new.connect()
    seconds = [Outgoing(envelope(number), 60.0, once=Once(f"once-{number}", replace=True)) for number in range(20)]
    assert set(await new.append(seconds)) == {Status.SCHEDULED}
    [state] = await new.inspect([STREAM])
    assert state.scheduled == 20
    assert all([await new.cancel(item.envelope.id, STREAM) for item in seconds])


# For operators --------------------------------------------------------------------------------------------------------


async def test_it_is_told_of_as_one_stream(divided: RedisTransport, raw: Everywhere) -> None:
    await divided.append(said(*range(80)))
    deliveries = await receive(divided, ANN, 30)
    await settle(divided, deliveries[:5], Dead(FAILED, 1))
    [state], [found] = await read_streams(raw, divided._namespace), await divided.inspect([STREAM])
    assert (state.name, state.length) == (found.name, found.length)
    [group] = state.groups
    assert (state.name, state.length, state.dead, state.partitions) == (STREAM, 80, 5, COUNT)
    assert (group.lag, group.backlog, group.pending) == (50, 50, 25)
    assert [(each.name, each.pending) for each in group.consumers] == [("ann", 25)]
    assert await divided.find_streams() == [STREAM]


async def test_dead_letters_are_found_and_replayed(divided: RedisTransport) -> None:
    await divided.append(said(*range(40)))
    await settle(divided, await receive(divided, ANN, 40), Dead(FAILED, 1))
    letters = [each for log in await divided.streams() for each in await divided.dead_letters(log)]
    assert len(letters) == 40
    for letter in letters:
        assert letter.envelope is not None
        assert letter.stream == log_of(letter.envelope, None, COUNT)
        assert await divided.replay(letter)
    assert sorted(numbers(await receive(divided, ANN, 40))) == list(range(40))


async def test_events_are_found_by_their_ids_and_correlation(divided: RedisTransport) -> None:
    items = said(*range(30))
    await divided.append(items)
    for item in items[::7]:
        assert (await divided.locate(item.envelope.id, [STREAM])).envelope == item.envelope
        assert (await divided.locate(item.envelope.id)).stream == log_of(item.envelope, None, COUNT)
        [found] = await divided.related(item.envelope.id, [STREAM])
        assert found.envelope.id == item.envelope.id


async def test_all_logs_are_trimmed_and_a_group_is_forgotten_in_all(
    divided: RedisTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventbus.redis.tidying.KEEP_AT_LEAST", 0)
    await divided.append(said(*range(100)))
    await settle(divided, await receive(divided, ANN, 100), Ack())
    retention = Retention(settled_count=0)

    async def trimmed() -> bool:
        return (await divided.tidy(STREAM, retention)).left == 0

    await eventually(trimmed)
    assert await lengths(divided) == [0] * COUNT
    assert await divided.forget_group(STREAM, ANN.group)
    assert (await divided.inspect([STREAM]))[0].groups == ()


async def test_who_reads_is_seen_though_nothing_comes(divided: RedisTransport) -> None:
    """As well as with one log: Redis 7.0 notes only who was given something, and then there is nothing to see."""
    other, pause = consumer("ann", stream="invoice"), 0.3
    for subscription in (other, ANN, other, ANN):  # the first reads make the groups
        assert await divided.read(subscription, 10, 0.01) == []
    await asyncio.sleep(pause)
    for subscription in (other, ANN):
        assert await divided.read(subscription, 10, 0.01) == []
    found = await divided.inspect(["invoice", STREAM])
    [one, many] = [consumer_.idle for state in found for consumer_ in state.groups[0].consumers]
    assert many <= one or one > pause


async def test_a_number_that_somebody_has_written_by_hand_is_told_and_ignored(
    make: Make, raw: Everywhere, capsys: pytest.CaptureFixture[str]
) -> None:
    transport = make()
    await raw.execute("HSET", f"{transport._namespace}:partitions", STREAM, "many")
    await transport.connect()
    await transport._partitions.look()
    assert transport._partitions.logs(STREAM) == (STREAM,)
    assert capsys.readouterr().out.count("partitions cannot be read") <= 1
    assert stream_keys("eb", "lead.3").stream == "eb:{lead.3}:stream"


@pytest.mark.one_server  # sentinels ask, too, and are counted
async def test_an_idle_log_costs_nothing(make: Make, raw: Everywhere) -> None:
    """Commands of a reader that has nothing to do: of many logs not twice what one takes."""

    async def commands(count: int, name: str) -> int:
        transport = RedisTransport(raw.where.url, namespace=name, partitions={STREAM: count})
        await transport.connect()
        ann = consumer("ann", lease=LEASE)
        await transport.append(said(*range(100)))
        await settle(transport, await receive(transport, ann, 100), Ack())

        async def calm() -> bool:
            await transport.read(ann, 10, 0.01)
            await transport.reclaim(ann, 10)
            divided = transport._divided.get(ann)
            return divided is None or all(log.reclaim_at > soon for log in divided._logs)

        soon = asyncio.get_running_loop().time() + 100
        await eventually(calm)
        before = await calls(raw)
        for _ in range(10):
            await asyncio.gather(transport.read(ann, 10, 0.1), transport.reclaim(ann, 10))
        after = await calls(raw)
        await transport.close()
        return (after - before).total()

    one, many = await commands(1, "test-one"), await commands(64, "test-many")
    assert many <= 2 * one


async def calls(raw: Everywhere) -> Counter[str]:
    """But for the looks at the server's clock, which are by the clock."""
    found: Counter[str] = Counter()
    for line in (await raw.execute("INFO", "commandstats")).decode().splitlines():
        name, _, told = line.partition(":calls=")
        if told and name not in {"cmdstat_time", "cmdstat_info", "cmdstat_ping"}:
            found[name] += int(told.partition(",")[0])
    return found


# What else happens ----------------------------------------------------------------------------------------------------


def in_log(number: int, log: int, count: int = COUNT) -> Outgoing:
    """An event whose key belongs to this log."""
    keys = (f"key-{attempt}" for attempt in range(100_000))
    wanted = logs_of(STREAM, count)[log]
    key = next(key for key in keys if log_of(envelope(subject=key), None, count) == wanted)
    return Outgoing(envelope(number, subject=key))


async def calm(transport: RedisTransport, subscription: Subscription) -> None:
    """All of its logs were read to their ends, and nothing is in hand."""
    loop = asyncio.get_running_loop()

    async def at_rest() -> bool:
        assert await transport.read(subscription, 10, 0.01) == []
        assert (await transport.reclaim(subscription, 10)).deliveries == []
        return all(log.reclaim_at > loop.time() + 10 for log in transport._divided[subscription]._logs)

    await eventually(at_rest)


async def test_what_is_scheduled_just_behind_a_look_at_the_schedule_comes_in_time(divided: RedisTransport) -> None:
    """Another group of the process has looked for both, and a second later nobody would look again."""
    ann, other = consumer(lease=600), consumer(group="shipping")
    await calm(divided, ann)
    await divided.reclaim(other, 0)
    await divided.append([in_log(1, 3)._replace(delay=2.0)])
    assert await divided.read(ann, 10, 0.01) == []
    found: list[Delivery] = []

    async def handed_out() -> bool:
        await divided.reclaim(ann, 10)
        found.extend(await divided.read(ann, 10, 0.05))
        return bool(found)

    await eventually(handed_out, timeout=30)
    assert numbers(found) == [1]


async def test_a_worker_with_one_slot_goes_through_all_logs_without_a_pause(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventbus.redis.divided_reading._PAUSES", (3600.0,))
    transport = make(32)
    await transport.connect()
    await transport.append([in_log(1, 31, 32)])
    assert await asyncio.wait_for(first(transport), 60) == [1]


async def first(transport: RedisTransport) -> list[int]:
    return numbers(await transport.read(ANN, 1, 3600))


async def test_retries_of_all_logs_are_taken_over_one_after_the_other(divided: RedisTransport) -> None:
    await divided.append(said(*range(40)))
    await settle(divided, await receive(divided, ANN, 40), Retry(0.0, FAILED))
    found = [each for _ in range(40) for each in (await divided.reclaim(ANN, 1)).deliveries]
    assert sorted(numbers(found)) == list(range(40))


async def test_a_log_that_is_away_is_not_asked_without_end(divided: RedisTransport) -> None:
    """It had told when something would come due, and that is over."""
    await divided.read(ANN, 10, 0.01)
    away = False

    async def reclaim_(reader: Reader, _: int) -> Reclaimed:
        if away and reader.subscription.partition == 3:
            raise Unavailable("a node", "it is away")
        return Reclaimed(next_due=0.01 if reader.subscription.partition == 3 else None)

    reader = divided._divided[ANN]
    assert (await reader.reclaim(reclaim_, 10, suspect=False)).next_due is not None
    away = True

    async def failed() -> bool:
        await reader.reclaim(reclaim_, 10, suspect=False)
        return reader._logs[3].reclaim_at > asyncio.get_running_loop().time() + 0.5

    await eventually(failed)
    assert (await reader.reclaim(reclaim_, 10, suspect=False)).next_due is None


async def test_suspects_are_looked_for_in_all_logs_that_are_there(divided: RedisTransport) -> None:
    await divided.append([in_log(1, 7)])
    [delivery] = await receive(divided, ANN, 1)

    async def reclaim_(reader: Reader, _: int) -> Reclaimed:
        if reader.subscription.partition == 3:
            raise Unavailable("a node", "it is away")
        return Reclaimed([delivery] if reader.subscription.partition == 7 else [])

    assert (await divided._divided[ANN].reclaim(reclaim_, 1, suspect=True)).deliveries == [delivery]


async def test_a_read_that_is_cancelled_between_two_answers_gives_back_what_had_come(
    make: Make, divided: RedisTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = consumer(lease=600)
    await calm(divided, ann)
    reader = divided._divided[ann]
    readers = reader.readers

    async def silent(_: int) -> list[Delivery]:
        return await asyncio.Future()

    monkeypatch.setattr(readers[7], "look", silent)
    await divided.append([in_log(1, 2)])
    for log in reader._logs:
        log._ring()
    reading = asyncio.create_task(divided.read(ann, 100, 60))
    await until(lambda: readers[2].held)
    reading.cancel()
    await asyncio.wait([reading])
    await divided.unsubscribe([ann])
    other = make()
    await other.connect()
    assert numbers(await reclaim(other, consumer("bob", lease=600), 1)) == [1]


async def test_a_group_that_somebody_has_destroyed_misses_nothing(divided: RedisTransport, raw: Everywhere) -> None:
    await divided.append(said(*range(40)))
    await receive(divided, BOB, 40)

    async def all_seen() -> bool:
        assert await divided.read(ANN, 100, 0.05) == []
        return all(log.watching for log in divided._divided[ANN]._logs)

    await eventually(all_seen)
    await divided.unsubscribe([BOB], give_back=False)
    for log in logs_of(STREAM, COUNT):
        for lane in stream_keys(divided._namespace, log).lanes:
            await raw.execute("XGROUP", "DESTROY", lane, ANN.group)
    found: list[Delivery] = []

    async def handed_out() -> bool:
        found.extend((await divided.reclaim(ANN, 100)).deliveries)
        found.extend(await divided.read(ANN, 100, 0.05))
        return len(found) == 40

    await eventually(handed_out, timeout=30)


async def test_a_read_that_has_waited_since_before_the_stream_grew_can_be_interrupted(make: Make) -> None:
    old, new = make(), make(COUNT)
    await old.connect()
    assert await old.read(ANN, 10, 0.01) == []
    reading = asyncio.create_task(old.read(ANN, 10, 600))
    await new.connect()
    await old._partitions.look()
    await old.reclaim(ANN, 10)
    await eventually(lambda: interrupted(old, reading), timeout=30)
    assert await reading == []


async def test_a_log_that_cannot_be_read_is_told_and_the_others_are_read(
    divided: RedisTransport, raw: Everywhere
) -> None:
    await raw.execute("SET", stream_keys(divided._namespace, f"{STREAM}.3").stream, "somebody's")
    items = [item for item in said(*range(40)) if log_of(item.envelope, None, COUNT) != f"{STREAM}.3"]
    await divided.append(items)
    with capture_logs() as lines:
        found = await receive(divided, ANN, len(items))
        for _ in range(3):
            found += await divided.read(ANN, 10, 0.01)
            found += (await divided.reclaim(ANN, 10)).deliveries
    assert len(found) == len(items)
    told = [line for line in lines if line["log_level"] == "error" and line.get("stream") == f"{STREAM}.3"]
    assert len(told) == 1
    assert "WRONGTYPE" in told[0]["reason"]


async def test_a_log_that_says_nothing_keeps_no_other_waiting(
    divided: RedisTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is anything lost that it says later."""
    await calm(divided, ANN)
    reader = divided._divided[ANN]
    look, answering = reader.readers[7].look, asyncio.Event()

    async def slow(share: int) -> list[Delivery]:
        await answering.wait()
        return await look(share)

    monkeypatch.setattr(reader.readers[7], "look", slow)
    await divided.append([in_log(1, 2), in_log(7, 7)])
    for log in reader._logs:
        log._ring()
    assert numbers(await asyncio.wait_for(divided.read(ANN, 100, 60), 30)) == [1]
    answering.set()
    assert numbers(await divided.read(ANN, 100, 600)) == [7]


async def test_a_log_that_says_nothing_is_not_waited_for_when_its_reader_goes(
    divided: RedisTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    await calm(divided, ANN)
    reader = divided._divided[ANN]

    async def silent(_: int) -> list[Delivery]:
        return await asyncio.Future()

    monkeypatch.setattr(reader.readers[7], "look", silent)
    reader._logs[7]._ring()
    assert await divided.read(ANN, 100, 0.01) == []
    [late] = reader._looks.values()
    await divided.unsubscribe([ANN])
    await asyncio.wait([late], timeout=30)
    assert late.cancelled()
    assert not reader._looks
