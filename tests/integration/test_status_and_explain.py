"""`eventbus status` and `eventbus explain`: what an operator reads at three in the morning."""

import json
from collections.abc import AsyncIterator

import pytest

from eventbus import Event, EventBus
from eventbus.contract.delivery import Ack, Dead, Retry
from eventbus.contract.outgoing import Outgoing
from eventbus.event import uuid7
from eventbus.operating.aborting import aborts
from eventbus.redis import RedisTransport
from eventbus.redis.link import Link
from tests.integration.commands import assert_fits
from tests.integration.commands import eventbus_here as eventbus
from tests.samples import FAILED, consumer, envelope, receive, settle


class Ordered(Event, type="order.placed"):
    number: int = 0


@pytest.fixture
async def transport(any_redis_url: str) -> AsyncIterator[RedisTransport]:
    """Of four events billing has buried one, parks one and works on one; shipping has handled the first."""
    transport = RedisTransport(any_redis_url)
    await transport.append([Outgoing(envelope(n, subject=f"order-{n}")) for n in range(4)])
    await transport.append([Outgoing(envelope(9), delay=3_600)])
    dead, parked, _ = await receive(transport, consumer(), 3)
    await settle(transport, [dead], Dead(FAILED, 1))
    await settle(transport, [parked], Retry(600, FAILED))
    await settle(transport, await receive(transport, consumer(group="shipping")), Ack())
    yield transport
    await transport.close()


def group_of(answer: dict[str, list[dict[str, list[dict[str, object]]]]], name: str) -> dict[str, object]:
    [found] = [group for group in answer["streams"][0]["groups"] if group["name"] == name]
    return found


async def test_status_tells_what_waits_and_who_works(transport: RedisTransport, any_redis_url: str) -> None:
    run = eventbus("status", EVENTBUS_REDIS_URL=any_redis_url)
    assert run.returncode == 0, run.stderr
    assert_fits(run)
    rows = [line.split() for line in run.stdout.splitlines()]
    assert ["order", "4", "1", "1"] in [row[:4] for row in rows]
    [billing] = [row for row in rows if row[:2] == ["billing", "order"]]
    assert (billing[2:5], billing[6]) == (["1", "1", "1"], "1"), "lag, in hand, resting; workers"
    told = json.loads(eventbus("status", "--group", "shipping", "--json", EVENTBUS_REDIS_URL=any_redis_url).stdout)
    assert (group_of(told, "shipping")["lag"], group_of(told, "shipping")["pending"]) == (3, 0)
    assert [group["name"] for group in told["streams"][0]["groups"]] == ["shipping"]


async def test_a_lag_that_nobody_knows_is_called_unknown(transport: RedisTransport, any_redis_url: str) -> None:
    link = Link(any_redis_url, timeout=5, name="test")
    [*_, third, _] = await link.execute("XRANGE", "eb:{order}:stream", "-", "+")
    await link.execute("XDEL", "eb:{order}:stream", third[0])  # what is left of it cannot be counted any more
    await link.close()
    run = eventbus("status", EVENTBUS_REDIS_URL=any_redis_url)
    [shipping] = [line for line in run.stdout.splitlines() if line.startswith("shipping")]
    assert "unknown" in shipping, run.stdout
    told = json.loads(eventbus("status", "--json", EVENTBUS_REDIS_URL=any_redis_url).stdout)
    assert group_of(told, "shipping")["lag"] is None


async def test_explain_has_a_line_for_each_group(transport: RedisTransport, any_redis_url: str) -> None:
    [letter] = await transport.dead_letters("order")
    assert letter.envelope is not None
    run = eventbus("explain", letter.envelope.id, EVENTBUS_REDIS_URL=any_redis_url)
    assert run.returncode == 0, run.stderr
    assert_fits(run)
    assert run.stdout.startswith("order.placed, about order-0, made ")
    assert f"dead after 1 attempt: order/{letter.id}: {FAILED.error[:5]}" in run.stdout
    assert "shipping  done" in run.stdout
    told = json.loads(eventbus("explain", letter.envelope.id, "--json", EVENTBUS_REDIS_URL=any_redis_url).stdout)
    assert [group["standing"] for group in told["groups"]] == ["dead", "done"]
    assert told["outbox"] is None


async def test_explain_looks_into_the_outbox_too(redis_url: str, migrated_url: str) -> None:
    async with EventBus(redis_url, database=migrated_url) as bus, bus.transaction() as tx:
        waiting = await tx.publish(Ordered(), key="o-1")
    both = {"EVENTBUS_REDIS_URL": redis_url, "EVENTBUS_DATABASE_URL": migrated_url}
    run = eventbus("explain", waiting, **both)
    assert (run.returncode, "waits for the relay" in run.stdout) == (0, True), run.stdout + run.stderr
    away = {**both, "EVENTBUS_DATABASE_URL": "postgresql://app:sesame@127.0.0.1:1/app"}
    run = eventbus("explain", waiting, **away)
    assert "outbox and inbox are not looked at" in run.stderr
    assert "sesame" not in run.stderr


def test_explain_says_where_else_an_unknown_event_may_be(redis_url: str) -> None:
    run = eventbus("explain", uuid7(), EVENTBUS_REDIS_URL=redis_url)
    assert (run.returncode, "never stored" in run.stdout) == (1, True)
    assert eventbus("explain", "1526919030474-55", EVENTBUS_REDIS_URL=redis_url).returncode == 2
    assert "no streams" in eventbus("status", EVENTBUS_REDIS_URL=redis_url).stdout


async def test_a_pause_is_seen_by_all_who_look(transport: RedisTransport, any_redis_url: str) -> None:
    here = {"EVENTBUS_REDIS_URL": any_redis_url}
    paused = eventbus("groups", "pause", "shipping", "--reason", "the bank is away", **here)
    assert (paused.returncode, paused.stdout) == (0, "paused shipping\n")
    assert json.loads(paused.stderr)["audit"] == "groups.paused"
    again = eventbus("groups", "pause", "shipping", "--json", **here)
    assert (json.loads(again.stdout), again.stderr) == ({"group": "shipping", "paused": True, "changed": False}, "")
    [line] = [line for line in eventbus("status", **here).stdout.splitlines() if "paused" in line]
    assert "the bank is away" in line
    assert "the bank is away" in eventbus("doctor", "--watch", "0", **here).stdout
    async with EventBus(any_redis_url) as bus:
        waiting = await bus.publish(Ordered())
    told = " ".join(eventbus("explain", waiting.id, **here).stdout.split())
    assert "shipping waiting, 3 of its priority before it; paused" in told
    assert "the bank is away" in told
    assert eventbus("groups", "resume", "shipping", **here).stdout == "resumed shipping\n"
    assert eventbus("groups", "resume", "shipping", **here).stdout == "shipping: it was not paused\n"
    assert json.loads(eventbus("status", "--json", **here).stdout)["paused"] == {}


async def test_a_group_that_is_gone_is_forgotten(transport: RedisTransport, any_redis_url: str) -> None:
    here = {"EVENTBUS_REDIS_URL": any_redis_url}
    refused = eventbus("groups", "forget", "shipping", **here)
    assert refused.returncode == 1, "nobody was there to say yes"
    assert group_of(json.loads(eventbus("status", "--json", **here).stdout), "shipping")
    forgotten = eventbus("groups", "forget", "shipping", "--yes", **here)
    assert (forgotten.returncode, forgotten.stdout) == (0, "forgot shipping on order\n")
    assert json.loads(forgotten.stderr)["audit"] == "groups.forgotten"
    assert "shipping" not in eventbus("status", "--json", **here).stdout
    again = eventbus("groups", "forget", "shipping", "--yes", "--json", **here)
    assert json.loads(again.stdout) == {"group": "shipping", "streams": []}


async def test_an_abort_is_asked_for_and_audited(any_redis_url: str) -> None:
    event_id, here = uuid7(), {"EVENTBUS_REDIS_URL": any_redis_url}
    run = eventbus("abort", event_id, "--group", "billing", "--reason", "it hangs", **here)
    assert (run.returncode, event_id in run.stdout) == (0, True), run.stderr
    assert json.loads(run.stderr) | {"by": "", "at": ""} == {
        "audit": "abort",
        "by": "",
        "at": "",
        "eventId": event_id,
        "group": "billing",
        "reason": "it hangs",
    }
    async with EventBus(any_redis_url) as bus:
        assert list(aborts(await bus.transport.controls())) == [("billing", event_id)]
    assert eventbus("abort", "x", **here).returncode == 2


async def test_partitions_are_told_as_one_stream_and_letters_by_their_log(any_redis_url: str) -> None:
    transport = RedisTransport(any_redis_url, partitions={"order": 4})
    await transport.connect()
    items = [Outgoing(envelope(n, subject=f"order-{n}")) for n in range(40)]
    await transport.append(items)
    taken = await receive(transport, consumer(), 20)
    await settle(transport, taken, Dead(FAILED, 1))
    await transport.close()
    run = eventbus("status", EVENTBUS_REDIS_URL=any_redis_url)
    assert_fits(run)
    assert "order (4 partitions)" in run.stdout
    [stream] = json.loads(eventbus("status", "--json", EVENTBUS_REDIS_URL=any_redis_url).stdout)["streams"]
    assert (stream["name"], stream["length"], stream["dead"], stream["partitions"]) == ("order", 40, 20, 4)
    assert (stream["groups"][0]["lag"], stream["groups"][0]["pending"]) == (20, 0)
    dead = taken[0].fields[b"id"].decode()
    explained = eventbus("explain", dead, EVENTBUS_REDIS_URL=any_redis_url)
    log = taken[0].subscription.log
    assert f"in stream {log}" in explained.stdout, "the log that it is in"
    assert f"{log}/" in explained.stdout, "and the letter's whole name"
    replayed = eventbus("dead", "replay", "--all", EVENTBUS_REDIS_URL=any_redis_url)
    assert (replayed.returncode, "20" in replayed.stdout) == (0, True), replayed.stderr
    audit = eventbus("audit", EVENTBUS_REDIS_URL=any_redis_url)
    assert audit.returncode == 0, audit.stdout
    assert "order.3" in audit.stdout
    forgotten = eventbus("groups", "forget", "billing", "--yes", EVENTBUS_REDIS_URL=any_redis_url)
    assert forgotten.returncode == 0, forgotten.stderr
    told = json.loads(eventbus("status", "--json", EVENTBUS_REDIS_URL=any_redis_url).stdout)
    assert told["streams"][0]["groups"] == []
