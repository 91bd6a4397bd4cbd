"""`eventbus audit` on streams where nothing is missing, and on streams that somebody has robbed."""

import json
import re
from collections.abc import AsyncIterator
from importlib import import_module

import pytest

from eventbus.contract.delivery import Ack, Dead, Retry
from eventbus.contract.inspection import Balance
from eventbus.contract.retention import Retention
from eventbus.redis import RedisTransport
from eventbus.redis.auditing import audit
from eventbus.redis.link import Link
from tests.integration.commands import assert_fits
from tests.integration.commands import eventbus_here as eventbus
from tests.samples import FAILED, consumer, outgoing, receive, settle

LANE = "eb:{order}:stream"


@pytest.fixture
async def link(any_redis_url: str) -> AsyncIterator[Link]:
    link = Link(any_redis_url, timeout=5, name="test")
    yield link
    await link.close()


@pytest.fixture
async def transport(any_redis_url: str) -> AsyncIterator[RedisTransport]:
    """Ten events: billing has done 2, buried 1, parked 1, has 2 in hand, and 4 wait; shipping has not begun."""
    transport = RedisTransport(any_redis_url)
    await transport.read(consumer(group="shipping"), 1, 0.01)
    await transport.append(outgoing(*range(8)))
    await transport.append([item._replace(envelope=item.envelope._replace(priority=1)) for item in outgoing(8, 9)])
    await transport.append(outgoing(11, 12, delay=3_600))
    done = await receive(transport, consumer(), 6)
    await settle(transport, done[:2], Ack())
    await settle(transport, done[2:3], Dead(FAILED, 1))
    await settle(transport, done[3:4], Retry(600, FAILED))
    yield transport
    await transport.close()


async def balances(link: Link) -> tuple[Balance, Balance]:
    (billing, shipping), _ = await audit(link, "eb")
    return billing, shipping


async def test_everything_is_accounted_for(transport: RedisTransport, link: Link, any_redis_url: str) -> None:
    billing, shipping = await balances(link)
    assert billing == Balance("order", "billing", 10, 2, 3, 4, 1, 0, ())
    assert shipping == Balance("order", "shipping", 10, 0, 0, 10, 0, 0, ())
    run = eventbus("audit", EVENTBUS_REDIS_URL=any_redis_url)
    assert (run.returncode, "nothing is missing" in run.stdout) == (0, True), run.stdout
    assert "scheduled: 2 on order" in run.stdout
    assert_fits(run)


async def test_a_dead_letter_that_somebody_added_by_hand_ends_no_audit(transport: RedisTransport, link: Link) -> None:
    await link.execute("XADD", "eb:{order}:dead", "*", "note", "mine")
    billing, shipping = await balances(link)
    assert (billing.dead, shipping.dead) == (1, 0)


async def test_what_is_trimmed_when_all_have_settled_it_is_not_missing(transport: RedisTransport, link: Link) -> None:
    await settle(transport, await receive(transport, consumer(group="shipping"), 10), Ack())
    await settle(transport, await receive(transport, consumer(), 4), Ack())
    await transport.tidy("order", Retention(settled=0, settled_count=0))
    billing, shipping = await balances(link)
    assert (billing.skipped, billing.lost, billing.done) == (0, (), 6)
    assert (shipping.skipped, shipping.done) == (0, 10)


async def test_what_was_trimmed_unread_is_missed(transport: RedisTransport, link: Link, any_redis_url: str) -> None:
    first = await link.execute("XREADGROUP", "GROUP", "shipping", "ann", "COUNT", 1, "STREAMS", LANE, ">")
    await link.execute("XACK", LANE, "shipping", first[0][1][0][0])
    await link.execute("XTRIM", LANE, "MAXLEN", 1)
    billing, shipping = await balances(link)
    assert shipping.skipped == 6
    assert billing.lost, "what was in hand is gone, too"
    run = eventbus("audit", "--json", EVENTBUS_REDIS_URL=any_redis_url)
    told = json.loads(run.stdout)
    assert run.returncode == 1
    assert "shipping on order: 6 entries vanished before they were delivered (trimmed from outside?)" in told["missing"]
    assert billing.lost[0] in "".join(told["missing"]), "it is named"


async def test_what_is_older_than_a_group_is_none_of_its_business(transport: RedisTransport, link: Link) -> None:
    await link.execute("XTRIM", LANE, "MAXLEN", 1)
    await link.execute("XGROUP", "CREATE", LANE, "later", "0")
    later = next(balance for balance in (await audit(link, "eb"))[0] if balance.group == "later")
    assert (later.skipped, later.done) == (None, None), "who knows"


async def test_a_pending_entry_that_was_deleted_is_named(transport: RedisTransport, link: Link) -> None:
    [held] = await link.execute("XPENDING", LANE, "billing", "-", "+", 1)
    await link.execute("XDEL", LANE, held[0])
    billing, _ = await balances(link)
    assert billing.lost == (held[0].decode(),)
    assert billing.pending == 2


async def test_a_schedule_that_is_torn_is_named(
    transport: RedisTransport, link: Link, any_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("eventbus.cli.audit"), "PAUSE", 0.0)
    [first, second] = await link.execute("ZRANGE", "eb:{order}:due", 0, -1)
    await link.execute("ZREM", "eb:{order}:due", first)
    await link.execute("HDEL", "eb:{order}:scheduled", second)
    run = eventbus("audit", EVENTBUS_REDIS_URL=any_redis_url)
    assert run.returncode == 1
    assert f"scheduled without a due time: {first.decode()}" in run.stdout
    assert f"due, but their content is gone: {second.decode()}" in run.stdout


async def test_one_event_that_somebody_acknowledged_is_missed_with_stream_group_and_time(
    transport: RedisTransport, link: Link, any_redis_url: str
) -> None:
    run = eventbus("audit", EVENTBUS_REDIS_URL=any_redis_url)
    assert run.returncode == 0
    assert "counted since: 20" in run.stdout
    await transport.tidy("order", Retention())
    held = await link.execute("XPENDING", LANE, "billing", "-", "+", 10, "ann")
    assert await link.execute("XACK", LANE, "billing", held[0][0]) == 1
    run = eventbus("audit", EVENTBUS_REDIS_URL=any_redis_url)
    assert run.returncode == 1
    said = "MISSING  billing on order: 1 vanished without having been settled"
    assert said in run.stdout
    assert re.search(r"1 since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC", run.stdout)
    await transport.tidy("order", Retention())
    told = json.loads(eventbus("audit", "--json", EVENTBUS_REDIS_URL=any_redis_url).stdout)
    assert re.search(r"1 between 20.* UTC and 20.* UTC", "".join(told["missing"]))
    [account] = [each for each in told["accounts"] if each["group"] == "billing"]
    assert (account["acknowledged"], account["buried"], account["missing"]) == (2, 1, 1)
    assert [gap["count"] for gap in account["gaps"]] == [1]


async def test_one_scheduled_event_of_which_nothing_is_left_is_missed(
    transport: RedisTransport, link: Link, any_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("eventbus.cli.audit"), "PAUSE", 0.0)
    [first, _] = await link.execute("ZRANGE", "eb:{order}:due", 0, -1)
    await link.execute("ZREM", "eb:{order}:due", first)
    await link.execute("HDEL", "eb:{order}:scheduled", first)
    await transport.tidy("order", Retention())
    run = eventbus("audit", EVENTBUS_REDIS_URL=any_redis_url)
    assert run.returncode == 1
    assert "MISSING  scheduled on order: 1 vanished without being promoted or cancelled" in run.stdout
    assert re.search(r"1 between .*20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC", run.stdout)
