"""A Redis user with just the rights that `eventbus doctor` tells to give: all works, and nothing is refused."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from eventbus import Backoff, Context, Event, EventBus, Group, InFlight, RateLimit, Reject, RetryPolicy, Tick
from eventbus.contract.circuits import Circuit
from eventbus.redis import rights
from eventbus.redis.link import Link
from tests.integration.commands import eventbus_here
from tests.waiting import eventually, until
from tests.working import working

USER, CHANNEL = "restricted", "pubsub:push"


class Asked(Event, type="right.asked"):
    what: str = "ok"


@pytest.fixture
async def raw(any_redis_url: str) -> AsyncIterator[Link]:
    link = Link(any_redis_url, timeout=5, name="test")
    await link.execute("ACL", "SETUSER", USER, "reset", "on", ">right", *rights.rules("eb"))
    await link.execute("ACL", "LOG", "RESET")
    yield link
    await link.execute("ACL", "DELUSER", USER)
    await link.close()


@pytest.fixture
def url(any_redis_url: str) -> str:
    parts = urlsplit(any_redis_url)
    return parts._replace(netloc=f"{USER}:right@{parts.hostname}:{parts.port}").geturl()


async def refused(raw: Link) -> list[str]:
    """What the server has refused the user, whoever noticed."""
    entries = [dict(zip(entry[::2], entry[1::2], strict=True)) for entry in await raw.execute("ACL", "LOG")]
    return [entry[b"object"].decode() for entry in entries if entry[b"username"].decode() == USER]


async def test_all_works_with_the_rights_that_doctor_tells_of(raw: Link, url: str, tmp_path: Path) -> None:
    with capture_logs() as lines:
        async with EventBus(url, spool=tmp_path / "spool") as bus:
            await handle_all(bus)
            await look_at_all(bus)
        for command in (
            ["status"],
            ["dead", "list"],
            ["dead", "replay", "--all"],
            ["groups", "pause", "asking"],
            ["groups", "resume", "asking"],
            ["audit"],
        ):
            run = await asyncio.to_thread(eventbus_here, *command, EVENTBUS_REDIS_URL=url)
            assert "NOPERM" not in run.stdout + run.stderr, run
    assert "NOPERM" not in str(lines)
    assert [line for line in lines if line["log_level"] == "error" and "reject" not in str(line).lower()] == []
    assert await refused(raw) == []
    run = await asyncio.to_thread(eventbus_here, "doctor", "--watch=0", EVENTBUS_REDIS_URL=url)
    assert "permissions" in run.stdout.splitlines()[-1] or "permissions" in run.stdout.partition("OK ")[2], run.stdout
    assert set(await refused(raw)) <= {"config|get"}, "which a managed server refuses, too"


async def handle_all(bus: EventBus) -> None:
    """Retries, dead letters, limits, states, what recurs, a listener; and the end of a worker whose reads wait."""
    asking = Group(
        "asking",
        retry=RetryPolicy(attempts=2, backoff=Backoff(first=0.01)),
        rate_limit=RateLimit(1_000, per=1),
        max_in_flight=InFlight(50, by="organization"),
        track=True,
    )
    done: list[str] = []
    fired = asyncio.Event()

    @asking.on(Asked)
    async def answer(event: Asked, ctx: Context) -> None:
        if event.what == "retry" and ctx.attempt == 1:
            raise ValueError(event.what)
        if event.what == "reject":
            raise Reject("no")
        async with ctx.guarded(Circuit("outside")):
            await ctx.progress(50)
        done.append(event.what)

    @asking.every(0.5)
    async def tick(tick: Tick, ctx: Context) -> None:
        fired.set()

    heard = asyncio.Event()

    async def listen() -> None:
        async for _ in bus.shared.listen(CHANNEL):
            heard.set()

    listening = asyncio.create_task(listen())
    async with working(bus, asking):
        for what in ("ok", "retry", "reject"):
            await bus.publish(Asked(what=what))
        await bus.publish(Asked(what="later"), delay=0.05)
        await bus.publish(Asked(what="once"), dedupe_key="k")
        await bus.publish(Asked(what="once"), dedupe_key="k", delay=3_600, dedupe="replace")
        async with bus.session(organization="acme") as session:
            await session.add(Asked(what="collected"))
        await until(lambda: {"ok", "retry", "later", "once", "collected"} <= set(done))
        await until(fired.is_set)

        async def told() -> bool:
            await bus.shared.broadcast(CHANNEL, b"x")
            return heard.is_set()

        await eventually(told)
    listening.cancel()
    await asyncio.wait([listening])


async def look_at_all(bus: EventBus) -> None:
    await bus.shared.remember("talk", {b"hello": 1}, keep=5, seconds=60)
    assert await bus.shared.recall("talk") == [b"hello"]
    assert (await bus.groups.counts("asking")).completed > 0
    receipt = await bus.publish(Asked(), delay=3_600)
    assert await bus.cancel(receipt.id, Asked)
    await bus.events.locate(receipt.id)
    await bus.transport.inspect(["right"])


async def test_who_may_not_listen_is_told_once_and_hears_when_he_may(raw: Link, url: str) -> None:
    await raw.execute("ACL", "SETUSER", USER, "resetchannels", "&eb:other:*")
    joined = asyncio.Event()

    async def listen(bus: EventBus) -> None:
        async for _ in bus.shared.listen(CHANNEL, joined.set):
            raise AssertionError("nothing was broadcast")

    with capture_logs() as lines:
        async with EventBus(url) as bus:
            listening = asyncio.create_task(listen(bus))

            async def asked_again() -> bool:
                entries = await raw.execute("ACL", "LOG")
                counts = [dict(zip(entry[::2], entry[1::2], strict=True))[b"count"] for entry in entries]
                return sum(map(int, counts)) > 1

            await eventually(asked_again)
            await raw.execute("ACL", "SETUSER", USER, "&pubsub:*")
            await asyncio.wait_for(joined.wait(), 90)
            listening.cancel()
            await asyncio.wait([listening])
    [told] = [line for line in lines if line["log_level"] == "error"]
    assert "may not listen" in told["event"]
    assert "NOPERM" in told["reason"] or "permission" in told["reason"]


async def test_who_may_not_end_reads_is_told_once(raw: Link, url: str) -> None:
    await raw.execute("ACL", "SETUSER", USER, "-client|unblock")
    group, done = Group("asking"), asyncio.Event()

    @group.on(Asked)
    async def answer(event: Asked, ctx: Context) -> None:
        done.set()

    with capture_logs() as lines:
        async with EventBus(url) as bus, working(bus, group):
            await bus.publish(Asked())
            await done.wait()
    [told] = [line for line in lines if line["log_level"] == "error"]
    assert "may not end waiting reads" in told["event"]
