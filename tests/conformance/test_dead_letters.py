"""A dead letter holds all that is needed to understand it and to run it again."""

from datetime import UTC, datetime, timedelta

import pytest

from eventbus.contract.broker import Broker
from eventbus.contract.codec import decode
from eventbus.contract.delivery import Ack, Dead, Failure, Retry
from eventbus.contract.outgoing import Outgoing
from eventbus.errors import CodecError
from tests.samples import FAILED, consumer, envelope, nothing_left, numbers, outgoing, receive, reclaim, settle

ANN = consumer("ann")


async def test_a_dead_letter_tells_everything(transport: Broker) -> None:
    sent = envelope(7, subject="order-7", organization="org", correlation_id="c", metadata={"user": "u"}, priority=2)
    before = datetime.now(UTC) - timedelta(seconds=1)
    await transport.append([Outgoing(sent)])
    await settle(transport, await receive(transport, ANN), Retry(0.0, Failure("first")))
    failure = Failure("ValueError: näh\nnot that", "Traceback (most recent call last):\n  …")
    await settle(transport, await reclaim(transport, ANN), Dead(failure, attempts=2))
    [letter] = await transport.dead_letters("order")
    assert letter.envelope == sent
    assert decode(letter.fields) == sent
    assert (letter.stream, letter.group) == ("order", "billing")
    assert (letter.attempts, letter.crashes) == (2, 0)
    assert (letter.error, letter.traceback) == (failure.error, failure.traceback)
    assert before < letter.first_failed_at <= letter.died_at < datetime.now(UTC) + timedelta(seconds=1)
    assert await transport.streams() == ["order"]


async def test_a_dead_letter_tells_of_crashes(transport: Broker) -> None:
    await transport.append(outgoing(1))
    await receive(transport, consumer("first", lease=0.1))
    await settle(transport, await reclaim(transport, consumer("second", lease=0.1)), Dead(FAILED, 0))
    [letter] = await transport.dead_letters("order")
    assert (letter.attempts, letter.crashes) == (0, 1)


async def test_what_is_dead_is_not_delivered_any_more(transport: Broker) -> None:
    await transport.append(outgoing(1))
    await settle(transport, await receive(transport, ANN), Dead(FAILED, 1))
    assert await nothing_left(transport, consumer("bob", lease=0.1))


async def test_one_group_s_dead_letter_is_no_other_s(transport: Broker) -> None:
    await transport.append(outgoing(1))
    await settle(transport, await receive(transport, ANN), Dead(FAILED, 1))
    assert numbers(await receive(transport, consumer(group="shipping"))) == [1]


async def test_what_is_no_envelope_is_kept_as_it_came(transport: Broker) -> None:
    await transport.append([Outgoing(envelope(id="no uuid", data=b"\xff\x00"))])
    deliveries = await receive(transport, ANN)
    await settle(transport, deliveries, Dead(Failure("CodecError: …"), 0))
    [letter] = await transport.dead_letters("order")
    assert letter.envelope is None
    assert letter.fields == deliveries[0].fields
    with pytest.raises(CodecError, match="cannot be replayed"):
        await transport.replay(letter)
    assert len(await transport.dead_letters("order")) == 1


async def test_text_that_is_no_utf_8_can_be_buried(transport: Broker) -> None:
    """An error message may quote a file name: Python keeps its undecodable bytes as lone surrogates."""
    await transport.append(outgoing(1, 2))
    one, two = await receive(transport, ANN, 2)
    await settle(transport, [one], Dead(Failure("no file \udcff", "Traceback \udcff"), 1))
    await settle(transport, [two], Ack())
    [letter] = await transport.dead_letters("order")
    assert letter.error.startswith("no file ")


async def test_dead_letters_are_listed_oldest_first_in_pages(transport: Broker) -> None:
    await transport.append(outgoing(*range(12)))
    for delivery in await receive(transport, ANN, 12):
        await settle(transport, [delivery], Dead(FAILED, 1))
    listed: list[int] = []
    after = ""
    while page := await transport.dead_letters("order", after=after, limit=5):
        listed += [int(letter.fields[b"data"]) for letter in page]
        after = page[-1].id
    assert listed == list(range(12))


async def test_streams_without_dead_letters_are_not_named(transport: Broker) -> None:
    await transport.append(outgoing(1) + outgoing(2, stream="invoice") + outgoing(3, stream="account"))
    assert await transport.streams() == []
    assert await transport.dead_letters("order") == []
    for stream in ("order", "account"):
        await settle(transport, await receive(transport, consumer(stream=stream)), Dead(FAILED, 1))
    assert await transport.streams() == ["account", "order"]
    for letter in await transport.dead_letters("order"):
        await transport.replay(letter)
    assert await transport.streams() == ["account"]


async def test_a_replay_goes_to_the_group_where_it_died_once(transport: Broker) -> None:
    sent = envelope(1, subject="order-1")
    await transport.append([Outgoing(sent)])
    await settle(transport, await receive(transport, ANN), Dead(FAILED, 1))
    [letter] = await transport.dead_letters("order")
    assert await transport.replay(letter)
    assert not await transport.replay(letter)
    assert await transport.dead_letters("order") == []
    [again] = await receive(transport, ANN)
    assert decode(again.fields) == sent._replace(only="billing", replayed=True)
    assert (again.failures, again.crashes) == (0, 0), "attempts start again"
    await settle(transport, [again], Ack())
    assert await nothing_left(transport, ANN)


async def test_what_died_again_can_be_replayed_again(transport: Broker) -> None:
    await transport.append(outgoing(1))
    for _ in range(3):
        await settle(transport, await receive(transport, ANN), Dead(FAILED, 1))
        [letter] = await transport.dead_letters("order")
        assert await transport.replay(letter)
    assert numbers(await receive(transport, ANN)) == [1]


async def test_a_dead_letter_is_found_by_its_id_until_it_is_discarded(transport: Broker) -> None:
    await transport.append(outgoing(1, 2))
    await settle(transport, await receive(transport, ANN, 2), Dead(FAILED, 1))
    first, second = await transport.dead_letters("order")
    assert await transport.dead_letter("order", first.id) == first
    assert await transport.discard(first)
    assert not await transport.discard(first), "of two who try, one does"
    assert await transport.dead_letter("order", first.id) is None
    assert not await transport.replay(first), "what was let go does not come back"
    assert await transport.dead_letters("order") == [second]
    await transport.discard(second)
    assert await transport.streams() == []


@pytest.mark.parametrize("name", ["", "-", "+", "1", "(1-0", "$", "nonsense"])
async def test_what_is_no_id_finds_nothing(transport: Broker, name: str) -> None:
    await transport.append(outgoing(1))
    await settle(transport, await receive(transport, ANN), Dead(FAILED, 1))
    assert await transport.dead_letter("order", name) is None
