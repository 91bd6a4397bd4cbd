"""A cluster whose nodes fail over, die, are restarted, and hand their slots on, while events are published and handled.

Nothing that is acknowledged is lost or stored twice, but what a killed primary had not yet given to its replica.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from eventbus import EventBus
from eventbus.embedded import EmbeddedRedis
from eventbus.redis.router import Router
from tests.cluster import ClusterOfServers, cluster_of
from tests.faults.noting import KEYS, KEYS_IN_ALL, in_order, noting, publishing, stored
from tests.servers import redis_binaries
from tests.waiting import eventually, until
from tests.working import working

HELD = 2.0  # seconds; what a primary acknowledged before that is with its replica, however busy the machine

Trouble = Callable[[ClusterOfServers], Awaitable[None]]


async def planned(cluster: ClusterOfServers) -> None:
    await cluster.fail_over(KEYS.stream)


async def moved_at_once(cluster: ClusterOfServers) -> None:
    await cluster.move(KEYS.stream, await another(cluster), at_once=True)


async def moved_key_by_key(cluster: ClusterOfServers) -> None:
    await cluster.move(KEYS.stream, await another(cluster), at_once=False)


async def rolling(cluster: ClusterOfServers) -> None:
    """Each node is restarted, as an operator does it: primaries hand over to their replicas before."""
    for server in cluster.servers:
        nodes = await cluster.nodes()
        if not nodes[server.port].of:
            await cluster.ask(await cluster.replica(server), ("CLUSTER", "FAILOVER"))
            await eventually(partial(_follows, cluster, server.port))
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        await eventually(cluster.ready)


async def _follows(cluster: ClusterOfServers, port: int) -> bool:
    return bool((await cluster.nodes())[port].of)


async def another(cluster: ClusterOfServers) -> EmbeddedRedis:
    """A primary that does not have the stream."""
    owner, nodes = await cluster.owner(KEYS.stream), await cluster.nodes()
    return next(cluster.at(port) for port, node in nodes.items() if not node.of and port != owner.port)


MOVES = [("valkey", planned, 1), ("valkey", moved_at_once, 1), ("valkey", moved_key_by_key, 1), ("valkey", rolling, 1)]
MOVES += [("redis", planned, 1), ("redis", moved_key_by_key, 1), ("valkey", rolling, 4), ("redis", moved_key_by_key, 4)]


@pytest.mark.parametrize(("name", "trouble", "partitions"), MOVES)
async def test_nothing_is_lost_and_nothing_comes_twice(
    name: str, trouble: Trouble, partitions: int, tmp_path: Path
) -> None:
    handled: set[int] = set()
    told: list[int] = []
    with cluster_of(tmp_path, redis_binaries()[name]) as cluster, capture_logs() as lines:
        await cluster.join()
        async with (
            EventBus(cluster.seeds, partitions={"failover": partitions}) as bus,
            working(bus, noting(handled), in_order(told)),
            publishing(bus) as publisher,
        ):
            await until(lambda: len(handled) > 50)
            await trouble(cluster)
            over = time.monotonic()
            await until(lambda: len(publisher.since(over)) > 50)
            wanted = set(publisher.acknowledged)
            await until(lambda: wanted <= handled and wanted <= set(told))
        there = await found(cluster, partitions)
        assert wanted <= set(there)
        assert max(there.values()) == 1, "stored twice"
        for key in range(KEYS_IN_ALL):
            mine = [number for number in told if number % KEYS_IN_ALL == key]
            assert mine == sorted(mine), "a planned change costs no order"
        made = [line for line in lines if line["event"] == "group created"]
        assert len(made) == 2, "what is on another node was taken for lost"


async def found(cluster: ClusterOfServers, partitions: int = 1) -> dict[int, int]:
    router = Router(cluster.seeds, timeout=5, name="test")
    try:
        return await stored(router, partitions)
    finally:
        await router.close()


@pytest.mark.parametrize("name", sorted(redis_binaries()))
async def test_of_a_primary_that_is_killed_only_the_last_moment_is_lost(name: str, tmp_path: Path) -> None:
    handled: set[int] = set()
    with cluster_of(tmp_path, redis_binaries()[name]) as cluster:
        await cluster.join()
        async with EventBus(cluster.seeds) as bus, working(bus, noting(handled)), publishing(bus) as publisher:
            await until(lambda: len(handled) > 50)
            killed = await cluster.owner(KEYS.stream)
            held = publisher.until(time.monotonic() - HELD)
            killed.kill()
            after = time.monotonic()
            await until(lambda: len(publisher.since(after)) > 50)
            wanted = held | publisher.since(after)
            await until(lambda: wanted <= handled)
        there = await found(cluster)
        assert wanted <= set(there)
        assert max(there.values()) == 1, "stored twice"
