"""`bus.events.activity`: what several workers have counted, by organization, as their application asks for it."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis.asyncio import Redis

from eventbus import Activity, Backoff, Context, Event, EventBus, Group, Reject, RetryPolicy
from eventbus.redis.keys import tally_keys
from eventbus.roles.activity_counter import INTERVAL
from tests.integration.test_costs import cost, url
from tests.proxy import Proxy
from tests.servers import OwnRedis
from tests.waiting import PATIENCE, eventually
from tests.working import working

__all__ = ["url"]


class Poured(Event, type="tea.poured"):
    how: str = "ok"


def teahouse(name: str = "teahouse") -> Group:
    group = Group(name, lease=1.0, retry=RetryPolicy(2, Backoff.fixed(0.01)))

    @group.on(Poured)
    async def pour(event: Poured, ctx: Context) -> None:
        await asyncio.sleep(0.002)
        match event.how:
            case "spill" if ctx.attempt == 1:
                raise ValueError("spilt")
            case "break":
                raise Reject("redis://user:geheim@host broke")

    return group


async def ends(bus: EventBus, organization: str | None, processed: int) -> Activity:
    async def counted() -> Activity | None:
        found = await bus.events.activity(organization)
        assert found.processed <= processed
        return found if found.processed == processed else None

    found = await eventually(counted)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_two_groups_and_two_organizations(kind: str, request: pytest.FixtureRequest) -> None:
    where = "memory://" if kind == "memory" else request.getfixturevalue("redis_url")
    async with EventBus(where) as bus, working(bus, teahouse(), teahouse("cafe")):
        for how in ("ok", "ok", "spill", "break"):
            await bus.publish(Poured(how=how), organization="acme")
        await bus.publish(Poured(), organization="umbrella")
        broken = await bus.publish(Poured(how="break"))
        found = await ends(bus, "acme", 8)
        assert (found.success_rate, found.retries) == (0.75, 2)
        assert found.average_seconds is not None
        assert 0.002 <= found.average_seconds < 5
        assert {(one.group, one.error, one.attempts) for one in found.failures} == {
            (name, "Reject: redis://user:***@host broke", 1) for name in ("teahouse", "cafe")
        }
        other = await ends(bus, "umbrella", 2)
        assert (other.success_rate, other.failures) == (1.0, [])
        nobodys = await ends(bus, None, 2)
        assert {one.event_id for one in nobodys.failures} == {broken.id}


async def test_what_was_counted_is_written_when_a_worker_stops(redis_url: str) -> None:
    async with EventBus(redis_url) as bus:
        async with working(bus, teahouse()):
            await bus.publish(Poured(), organization="acme")
            [group] = await eventually(lambda: _settled(bus))
            assert group
        assert (await bus.events.activity("acme")).processed == 1


async def _settled(bus: EventBus) -> list[str]:
    [stream] = await bus.transport.inspect(["tea"])
    return [group.name for group in stream.groups if group.lag == 0 and not group.pending]


WORKER = """
import asyncio, sys
from eventbus import EventBus, Worker
from tests.integration.test_activity import teahouse

async def main():
    async with EventBus(sys.argv[1]) as bus:
        await Worker(bus, [teahouse()]).run()

asyncio.run(main())
"""


@contextmanager
def processes(url: str, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    running = [subprocess.Popen([sys.executable, "-c", WORKER, url], env=environment) for _ in range(count)]
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


async def test_processes_are_added_up_also_behind_one_that_was_killed(redis_url: str) -> None:
    published = 0

    async def publish(bus: EventBus, count: int) -> None:
        nonlocal published
        for _ in range(count):
            await bus.publish(Poured(), organization="acme")
        published += count

    async def both_have_counted(bus: EventBus) -> bool:
        await publish(bus, 1)
        return await _writers(redis_url) == 2

    async with EventBus(redis_url) as bus:
        with processes(redis_url, 2) as workers:
            await eventually(lambda: both_have_counted(bus))
            await ends(bus, "acme", published)
            workers[0].kill()
            await publish(bus, 50)
            await ends(bus, "acme", published)


async def _writers(url: str) -> int:
    """How many processes have added to what is known of acme."""
    keys = tally_keys("eb", "acme")
    async with Redis.from_url(url, decode_responses=True, socket_timeout=PATIENCE) as client:
        return len(set(await client.keys(keys.prefix + "*")) - {keys.failures})


async def test_what_was_added_though_its_reply_was_lost_counts_once(redis_url: str) -> None:
    addition = tally_keys("eb", "acme").failures.encode()  # no other command of this worker names it
    async with (
        EventBus(redis_url) as bus,
        Proxy(redis_url) as proxy,
        EventBus(proxy.url) as behind,
        working(behind, teahouse()),
    ):
        for total in (5, 10):
            lost = proxy.lose_reply_to(addition)
            for _ in range(5):
                await bus.publish(Poured(), organization="acme")
            await lost.wait()
            await bus.publish(Poured(), organization=f"sentinel-{total}")
            await ends(bus, f"sentinel-{total}", 1)  # so what was lost has been sent again
            assert (await bus.events.activity("acme")).processed == total


async def test_a_server_that_was_away_has_all_counts_in_the_end(own_redis: OwnRedis) -> None:
    redis = await asyncio.to_thread(own_redis)
    async with EventBus(redis.url) as bus, working(bus, teahouse()):
        await asyncio.gather(*(bus.publish(Poured(), organization="acme") for _ in range(100)))
        await eventually(lambda: _settled(bus))
        await asyncio.to_thread(redis.kill)
        await asyncio.sleep(INTERVAL * 1.5)  # so that it was tried to write them
        await asyncio.to_thread(redis.start)
        await _pour(bus, 100, before=100)


async def test_an_idle_worker_writes_no_counts(url: str) -> None:
    async with EventBus(url) as bus, working(bus, teahouse()):
        await bus.publish(Poured(), organization="acme")
        await ends(bus, "acme", 1)
        quiet = await cost(url, lambda: asyncio.sleep(2.5))
        busy = await cost(url, lambda: _pour(bus, 300, before=1))
    assert not quiet.commands.get("lpush")
    assert not quiet.commands.get("hset")
    assert busy.commands["hset"] <= 3, "one a second"


async def _pour(bus: EventBus, count: int, *, before: int = 0) -> None:
    """And wait until they are counted, behind those before."""
    await asyncio.gather(*(bus.publish(Poured(), organization="acme") for _ in range(count)))
    await ends(bus, "acme", before + count)
