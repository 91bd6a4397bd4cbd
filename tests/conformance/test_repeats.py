"""What is appended again is looked for in pages, and told of item by item."""

import re
from collections.abc import Collection, Sequence

import pytest

from eventbus.contract.dedupe import Once
from eventbus.contract.outgoing import Fate, Outgoing, fates_of
from eventbus.errors import EventBusError, Full, Unavailable
from eventbus.event import Status
from eventbus.redis import RedisTransport, append_again, look_back
from eventbus.redis.links import Links, ReplyError
from eventbus.redis.look_back import Looked
from tests.conformance.reach import connected
from tests.proxy import Proxy
from tests.samples import STREAM, consumer, envelope, numbers, outgoing, receive

LANE = f"eb:{{{STREAM}}}:stream"


async def fates(transport: RedisTransport, items: Sequence[Outgoing], *, again: bool) -> list[Fate]:
    try:
        return [*await transport.append(items, again=again)]
    except EventBusError as error:
        return [*fates_of(error, len(items))]


async def test_no_command_looks_at_more_than_a_page(redis_transport: RedisTransport, raw: Links) -> None:
    """Entries come whole: twenty thousand large ones in one script kept the server from everybody for seconds."""
    large = [Outgoing(envelope(data=b'"' + b"x" * 30_000 + b'"')) for _ in range(300)]
    await redis_transport.append(large)
    await raw.execute("CONFIG", "RESETSTAT")
    new = Outgoing(envelope())
    assert await redis_transport.append([large[0], new], again=True) == [Status.DUPLICATE, Status.STORED]
    calls = re.findall(rb"cmdstat_eval(?:sha)?:calls=(\d+)", await raw.execute("INFO", "commandstats"))
    assert sum(map(int, calls)) >= 300 * 30_000 // 2**20, "each looks at less than a MiB"


async def test_a_look_ends_after_so_many_bytes(
    redis_transport: RedisTransport, raw: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_back, "PAGE_BYTES", 10_000)
    monkeypatch.setattr(look_back, "LOOK_BACK_BYTES", 50_000)
    first, *others = [Outgoing(envelope(data=b'"' + b"x" * 1_000 + b'"')) for _ in range(100)]
    await redis_transport.append([first, *others])
    assert await redis_transport.append([others[-40], first], again=True) == [Status.DUPLICATE, Status.STORED]


@pytest.mark.parametrize("between", [1, 50], ids=["a little", "more than one step looks at"])
async def test_what_comes_between_the_look_and_the_append_is_seen(
    redis_transport: RedisTransport, any_redis_url: str, monkeypatch: pytest.MonkeyPatch, between: int
) -> None:
    """The first try itself may come as late: it lay in the socket of a server that was frozen."""
    items = outgoing(1, 2)

    async def look(links: Links, lane: str, ids: Collection[str], age: int) -> Looked:
        looked = await look_back.look(links, lane, ids, age)
        async with connected(any_redis_url) as late:
            await late.append(items[:1] + outgoing(*range(10, 10 + between)))
        return looked

    monkeypatch.setattr(append_again, "look", look)
    monkeypatch.setattr(append_again, "SINCE", 8)
    assert await redis_transport.append(items, again=True) == [Status.DUPLICATE, Status.STORED]
    assert numbers(await receive(redis_transport, consumer(), between + 2)) == [1, *range(10, 10 + between), 2]


@pytest.mark.parametrize("again", [False, True], ids=["at first", "again"])
async def test_a_stream_that_refuses_is_told_apart_from_the_others(
    redis_transport: RedisTransport, raw: Links, again: bool
) -> None:
    await raw.execute("SET", "eb:{invoice}:stream", "not a stream")
    items = outgoing(1) + outgoing(2, stream="invoice") + outgoing(3) + outgoing(4, stream="invoice")
    with pytest.raises(ReplyError, match="WRONGTYPE"):
        await redis_transport.append(items, again=again)
    told = await fates(redis_transport, items, again=True)
    assert [told[0], told[2]] == [Status.DUPLICATE] * 2, "they were stored though others were refused"
    assert all(isinstance(fate, ReplyError) for fate in (told[1], told[3]))
    await raw.execute("DEL", "eb:{invoice}:stream")
    expected = [Status.DUPLICATE, Status.STORED, Status.DUPLICATE, Status.STORED]
    assert await redis_transport.append(items, again=True) == expected


async def test_one_dedupe_key_that_refuses_is_told_apart(redis_transport: RedisTransport, raw: Links) -> None:
    items = [Outgoing(envelope(n), once=Once(key)) for n, key in enumerate("abc")]
    await raw.execute("HSET", "eb:{order}:once:order.placed::b", "no", "string")
    for again in (False, True):
        first, second, third = await fates(redis_transport, items, again=again)
        assert first == third == Status.STORED
        assert isinstance(second, ReplyError)


async def test_a_server_that_is_full_refuses_what_is_missing_alone(redis_transport: RedisTransport, raw: Links) -> None:
    there, missing = outgoing(1), outgoing(2)
    await redis_transport.append(there)
    await raw.execute("CONFIG", "SET", "maxmemory", 1)
    try:
        first, second = await fates(redis_transport, there + missing, again=True)
    finally:
        await raw.execute("CONFIG", "SET", "maxmemory", 0)
    assert first is Status.DUPLICATE
    assert isinstance(second, Full)


async def test_a_connection_that_breaks_midway_leaves_known_what_was_answered(
    any_redis_url: str, raw: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is too large for the server: it hangs up, and the others must not be held to be unknown for ever."""
    monkeypatch.setattr(append_again, "PART_BYTES", 1)
    await raw.execute("CONFIG", "SET", "proto-max-bulk-len", 2**20)
    large = Outgoing(envelope(data=b'"' + b"x" * 2**20 + b'"'))
    items = [*outgoing(1, 2), large, *outgoing(3)]
    try:
        async with connected(any_redis_url) as transport:
            told = await fates(transport, items, again=False)
            again = await fates(transport, items, again=True)
    finally:
        await raw.execute("CONFIG", "SET", "proto-max-bulk-len", 512 * 2**20)
    assert told[3] is Status.STORED or isinstance(told[3], Unavailable)
    assert again[:2] == [Status.DUPLICATE] * 2
    assert isinstance(again[2], EventBusError)


@pytest.mark.one_server
async def test_a_reply_that_is_lost_is_unknown_for_those_alone_that_had_none(any_redis_url: str) -> None:
    async with Proxy(any_redis_url) as proxy, connected(proxy.url) as transport:
        await transport.connect()
        lost = proxy.lose_reply_to(b"order.placed")
        told = await fates(transport, outgoing(1, 2), again=False)
        assert lost.is_set()
        assert all(isinstance(fate, Unavailable) for fate in told)
