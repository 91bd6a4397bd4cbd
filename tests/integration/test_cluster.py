"""A cluster of three primaries, one of which has a replica: what a program, an operator and the engine make of it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis.crc import key_slot
from structlog.testing import capture_logs

from eventbus import Context, Event, EventBus, Group, Status
from eventbus.contract.delivery import Ack, Settlement
from eventbus.embedded.ports import LOOPBACK
from eventbus.errors import ConfigurationError, Unavailable
from eventbus.redis import RedisTransport, blocking_renewal
from eventbus.redis import cluster as module_of_clusters
from eventbus.redis.address import Place
from eventbus.redis.cluster_map import SLOTS
from eventbus.redis.keys import group_keys, stream_keys
from eventbus.redis.link import Link
from eventbus.redis.links import Command
from eventbus.redis.router import Router
from tests.cluster import PASSWORD, ClusterOfServers, cluster_of
from tests.integration.commands import eventbus_here as eventbus
from tests.proxy import Proxy
from tests.samples import consumer, numbers, outgoing, receive
from tests.servers import OwnRedis
from tests.waiting import eventually, until
from tests.working import working

STREAMS = ("apple", "beech", "cedar", "dogwood", "elm", "fir")


class Grown(Event, type="apple.grown"):
    number: int


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterOfServers]:
    with cluster_of(tmp_path_factory.mktemp("cluster"), primaries=3, replicas=1) as cluster:
        asyncio.run(cluster.join())
        yield cluster


@pytest.fixture
async def cluster(made: ClusterOfServers) -> ClusterOfServers:
    for port, node in (await made.nodes()).items():
        if not node.of:
            await made.ask(made.at(port), ("FLUSHDB",))
    return made


@pytest.fixture
async def router(cluster: ClusterOfServers) -> AsyncIterator[Router]:
    router = Router(cluster.seeds, timeout=5, name="test")
    yield router
    await router.close()


@pytest.mark.parametrize("named", ["url", "seeds"])
async def test_each_stream_is_where_its_keys_are(cluster: ClusterOfServers, named: str) -> None:
    """Also by the address of one node, which says that it is one of a cluster."""
    transport = RedisTransport(getattr(cluster, named))
    try:
        await transport.connect()
        for stream in STREAMS:
            await transport.append(outgoing(1, 2, stream=stream))
        owners = Counter([(await cluster.owner(stream_keys("eb", stream).stream)).port for stream in STREAMS])
        assert len(owners) > 1, "else this proves nothing"
        assert await transport.find_streams() == sorted(STREAMS)
        for stream in STREAMS:
            subscription = consumer(stream=stream)
            deliveries = await receive(transport, subscription, 2)
            assert numbers(deliveries) == [1, 2]
            assert await transport.settle([Settlement(delivery, Ack()) for delivery in deliveries]) == []
        assert [state.groups[0].pending for state in await transport.inspect(STREAMS)] == [0] * len(STREAMS)
    finally:
        await transport.close()


async def test_all_who_find_out_at_once_that_it_is_a_cluster_find_the_same(cluster: ClusterOfServers) -> None:
    router = Router(cluster.url, timeout=5, name="test")
    try:
        found = await asyncio.gather(*(router.nodes() for _ in range(20)))
        assert {len(nodes) for nodes in found} == {3}
    finally:
        await router.close()


async def test_who_waits_to_learn_of_the_cluster_is_told_that_it_is_closed(cluster: ClusterOfServers) -> None:
    """He is not cancelled: he did not ask for that."""
    silent = cluster.servers[0]
    router = Router(silent.url.replace("redis://", "redis+cluster://"), timeout=5, name="test")
    silent.pause()
    try:
        asking = asyncio.create_task(router.execute("GET", "key"))
        await until(lambda: router._cluster is not None and router._cluster._learning is not None)
        await router.close()
        with pytest.raises(Unavailable):
            await asking
    finally:
        silent.resume()


@pytest.mark.parametrize("named", ["url", "seeds"])
async def test_a_login_that_is_refused_is_a_fault_of_the_configuration(cluster: ClusterOfServers, named: str) -> None:
    url = getattr(cluster, named).replace(PASSWORD, "not-the-password")
    with pytest.raises(ConfigurationError, match="refused the login"):
        async with EventBus(url):
            pass


async def test_a_node_that_has_left_the_cluster_is_not_believed_to_be_all_of_it(
    cluster: ClusterOfServers, tmp_path: Path
) -> None:
    """It has lost its nodes.conf, say: it answers, and knows nobody. The others are away at the time."""
    with cluster_of(tmp_path, primaries=1, replicas=0) as left:
        [alone] = left.servers
        [owner] = {await cluster.owner("key")}
        hosts = f"{LOOPBACK}:{alone.port},{LOOPBACK}:{owner.port}"
        router = Router(f"redis+cluster://:{PASSWORD}@{hosts}/0", timeout=5, name="test")
        owner.pause()
        try:
            with pytest.raises(Unavailable):
                await router.execute("SET", "key", 1)
            owner.resume()

            async def stored() -> bool:
                with suppress(Unavailable):
                    return bool(await router.execute("SET", "key", 1))
                return False

            await eventually(stored, timeout=10)
        finally:
            owner.resume()
            await router.close()


async def test_one_write_goes_to_all_and_each_has_its_reply(router: Router) -> None:
    commands: list[Command] = [("SET", f"key-{number}", number) for number in range(100)]
    assert await router.pipeline(commands) == [b"OK"] * 100
    commands = [("GET", f"key-{number}") for number in range(100)]
    commands[50] = ("LPUSH", "key-50", "x")
    replies = await router.each(commands)
    assert str(replies.pop(50)).startswith("WRONGTYPE")
    assert replies == [b"%d" % number for number in range(100) if number != 50]


async def test_what_is_asked_beside_a_key_is_asked_there(cluster: ClusterOfServers, router: Router) -> None:
    for number in range(10):
        info, _ = await router.pipeline([("INFO", "server"), ("GET", f"key-{number}")])
        assert b"tcp_port:%d" % (await cluster.owner(f"key-{number}")).port in info


async def test_while_a_slot_is_on_its_way_its_events_are_taken_and_handled(cluster: ClusterOfServers) -> None:
    """Key by key: some are there, some are here, and a script that needs both has to wait."""
    handled: set[int] = set()
    group = Group("growers")

    @group.on(Grown)
    async def note(event: Grown, _: Context) -> None:
        handled.add(event.number)

    key = stream_keys("eb", "apple").stream
    source = await cluster.owner(key)
    nodes = await cluster.nodes()
    target = next(cluster.at(port) for port, node in nodes.items() if not node.of and port != source.port)
    async with EventBus(cluster.seeds) as bus, working(bus, group):
        await bus.publish(Grown(number=0))
        await until(lambda: 0 in handled)
        async with cluster.moving(key, target) as carry:
            await carry(1)
            receipts = [await bus.publish(Grown(number=number), priority=number) for number in range(1, 11)]
            assert {status for _, status in receipts} == {Status.STORED}
            await carry(100)
        await until(lambda: len(handled) == 11)
        async with cluster.moving(key, source) as carry:
            await carry(100)
            await bus.publish(Grown(number=11))
            await until(lambda: 11 in handled)  # all keys are there, though the slot is not yet


async def test_leases_are_kept_from_a_thread(cluster: ClusterOfServers) -> None:
    transport = RedisTransport(cluster.seeds)
    try:
        await transport.connect()
        held = []
        for stream in STREAMS:
            await transport.append(outgoing(1, stream=stream))
            held += await receive(transport, consumer(stream=stream), 1)
        keeper = transport.keeper()
        await asyncio.sleep(0.1)
        await asyncio.to_thread(keeper.renew, held)
        keeper.close()
        for stream in STREAMS:
            [[_, _, idle, _]] = await transport._router.execute(
                "XPENDING", stream_keys("eb", stream).stream, "billing", "-", "+", 1
            )
            assert idle < 100
    finally:
        await transport.close()


async def test_from_a_thread_leases_are_kept_where_nodes_answer_though_another_is_frozen(
    cluster: ClusterOfServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocking_renewal, "TIMEOUT", 0.2)
    transport = RedisTransport(cluster.seeds)
    try:
        await transport.connect()
        held, frozen = [], await cluster.owner(stream_keys("eb", STREAMS[0]).stream)
        for stream in STREAMS:
            await transport.append(outgoing(1, stream=stream))
            held += await receive(transport, consumer(stream=stream), 1)
        keeper = transport.keeper()
        await asyncio.sleep(0.5)
        frozen.pause()
        try:
            with pytest.raises(Unavailable):
                await asyncio.to_thread(keeper.renew, held)
        finally:
            frozen.resume()
        keeper.close()
        for stream in STREAMS:
            key = stream_keys("eb", stream).stream
            if await cluster.owner(key) is not frozen:
                [[_, _, idle, _]] = await transport._router.execute("XPENDING", key, "billing", "-", "+", 1)
                assert idle < 500
    finally:
        await transport.close()


async def test_a_node_that_names_no_host_means_its_own(cluster: ClusterOfServers) -> None:
    """cluster-preferred-endpoint-type unknown-endpoint: behind a balancer, nodes differ in their ports."""
    setting = ("CONFIG", "SET", "cluster-preferred-endpoint-type")
    for server in cluster.servers:
        await cluster.ask(server, (*setting, "unknown-endpoint"))
    transport = RedisTransport(cluster.url)
    try:
        await transport.connect()
        held = []
        for stream in STREAMS:
            await transport.append(outgoing(1, stream=stream))
            held += await receive(transport, consumer(stream=stream), 1)
        assert transport._router._cluster is not None
        told = transport._router._cluster.map
        places = sorted(told.places)
        for slot in range(SLOTS):  # all are elsewhere
            told._owners[slot] = places[(places.index(told._owners[slot]) + 1) % len(places)]  # type: ignore[arg-type]
        keeper = transport.keeper()
        await asyncio.to_thread(keeper.renew, held)
        assert {urlsplit(url).hostname for url in keeper._clients} == {LOOPBACK}
        keeper.close()
    finally:
        await transport.close()
        for server in cluster.servers:
            await cluster.ask(server, (*setting, "ip"))


async def test_a_notice_is_heard_from_whichever_node(cluster: ClusterOfServers) -> None:
    async with EventBus(cluster.seeds) as bus, EventBus(cluster.url) as other:
        heard: asyncio.Queue[bytes] = asyncio.Queue()
        joined = asyncio.Event()

        async def listen() -> None:
            async for message in bus.transport.listen("news", joined.set):
                heard.put_nowait(message)

        listening = asyncio.create_task(listen())
        await joined.wait()
        await other.transport.broadcast("news", b"one")
        assert await heard.get() == b"one"
        listening.cancel()


async def test_the_receipt_counts_the_replicas_of_the_node_that_has_the_event(cluster: ClusterOfServers) -> None:
    nodes = await cluster.nodes()
    followed = {node.of for node in nodes.values() if node.of}
    async with EventBus(cluster.seeds) as bus:
        port = (await cluster.owner(stream_keys("eb", "apple").stream)).port
        wanted = int(nodes[port].id in followed)
        assert (await bus.publish(Grown(number=1), replicas=1)).replicas == wanted


async def test_replicas_are_counted_where_a_stream_is_though_another_has_moved_away(cluster: ClusterOfServers) -> None:
    nodes = await cluster.nodes()
    followed = {node.of for node in nodes.values() if node.of}
    source = next(cluster.at(port) for port, node in nodes.items() if node.id in followed)
    target = next(cluster.at(port) for port, node in nodes.items() if not node.of and port != source.port)
    names = [f"stream-{number}" for number in range(20)]
    here = [name for name in names if await cluster.owner(stream_keys("eb", name).stream) is source]
    moving, staying = here[:2]
    transport = RedisTransport(cluster.seeds)
    try:
        await transport.connect()
        for stream in (moving, staying):
            await transport.append(outgoing(1, stream=stream))
            assert await transport.replicated(1, {stream}) == 1
        key = stream_keys("eb", moving).stream
        await cluster.move(key, target, at_once=False)
        try:
            for stream, replicas in ((moving, 0), (staying, 1)):
                await transport.append(outgoing(2, stream=stream))
                assert await transport.replicated(1, {stream}) == replicas
        finally:
            await cluster.move(key, source, at_once=False)
    finally:
        await transport.close()


async def test_what_the_replicas_of_a_node_have_is_not_asked_for_ever(tmp_path: Path) -> None:
    """Connections to a node end with its part in the cluster."""
    with cluster_of(tmp_path, primaries=3, replicas=3) as cluster:
        await cluster.join()
        transport = RedisTransport(cluster.seeds)
        try:
            await transport.connect()
            key = stream_keys("eb", "apple").stream
            for number in range(3):
                await transport.append(outgoing(number, stream="apple"))
                await transport.replicated(1, {"apple"})
                old = transport._router.at(key)
                await cluster.fail_over(key)
                await until(lambda old=old: old.closed)  # type: ignore[misc]
                await eventually(cluster.ready)
            await transport.append(outgoing(9, stream="apple"))
            assert await transport.replicated(1, {"apple"}) == 1
            assert len(transport._replicas._waits) == 1
        finally:
            await transport.close()


async def test_whoever_is_heard_from_anyway_is_asked_who_has_what(cluster: ClusterOfServers) -> None:
    """No connection is made for it, however often."""
    router = Router(cluster.seeds, timeout=5, name="test")
    try:
        for node in await router.nodes():
            await node.ready()

        async def made() -> list[int]:
            told = [await cluster.ask(server, ("INFO", "stats")) for server in cluster.servers]
            return [int(text.partition(b"connections_received:")[2].split()[0]) for [text] in told]

        before = await made()
        for _ in range(10):
            assert router._cluster is not None
            await router._cluster.learn()
        assert await made() == [count + 1 for count in before], "else than by `made` itself"
    finally:
        await router.close()


async def test_an_address_that_leads_to_a_cluster_one_day_is_watched_from_then_on(
    cluster: ClusterOfServers, own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody runs into what changes: it is looked for."""
    monkeypatch.setattr(module_of_clusters, "CHECK_EVERY", 0.1)
    single, told = await asyncio.to_thread(own_redis), list[int]()
    link = Link(single.url, timeout=5, name="test")
    await link.execute("CONFIG", "SET", "requirepass", PASSWORD)
    await link.close()
    key = stream_keys("eb", "apple").stream
    source, nodes = await cluster.owner(key), await cluster.nodes()
    target = next(cluster.at(port) for port, node in nodes.items() if not node.of and port != source.port)
    async with Proxy(f"redis://:{PASSWORD}@{LOOPBACK}:{single.port}/0") as proxy:
        router = Router(proxy.url, timeout=5, name="test")
        watching = asyncio.create_task(router.watch(lambda: told.append(1)))
        try:
            assert [node.clustered for node in await router.nodes()] == [False]
            proxy.lead_to(cluster.url)
            proxy.cut()
            await eventually(lambda: three(router))
            await until(lambda: told)
            await cluster.move(key, target, at_once=False)
            await until(lambda: router._cluster and router._cluster.place_of(key) == Place(LOOPBACK, target.port))
            await until(lambda: len(told) > 1)
        finally:
            watching.cancel()
            await router.close()
            await cluster.move(key, source, at_once=False)


async def three(router: Router) -> bool:
    with suppress(Unavailable):
        return len(await router.nodes()) == 3
    return False


async def test_while_a_node_is_silent_the_others_are_asked_more_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is frozen breaks no connection: nobody else would notice before a command's time is over."""
    with cluster_of(tmp_path, primaries=3, replicas=3) as cluster:
        await cluster.join()
        frozen = await cluster.owner("key")
        replica = Place(LOOPBACK, (await cluster.replica(frozen)).port)
        router = Router(cluster.seeds, timeout=600, name="test")
        for node in await router.nodes():
            await node.ready()
        monkeypatch.setattr(module_of_clusters, "CHECK_EVERY", 600.0)
        watching = asyncio.create_task(router.watch(lambda: None))
        frozen.pause()
        try:
            assert router._cluster is not None
            router._cluster.doubt()
            await until(lambda: router._cluster and router._cluster.place_of("key") == replica, timeout=30)
        finally:
            frozen.resume()
            watching.cancel()
            await router.close()


async def test_one_line_tells_who_has_taken_over_from_whom_and_what_led_to_the_old_one_is_closed(
    cluster: ClusterOfServers,
) -> None:
    """Also if it was first heard from somebody to whom a command went in vain."""
    nodes = await cluster.nodes()
    followed = {node.of for node in nodes.values() if node.of}
    primary = next(cluster.at(port) for port, node in nodes.items() if node.id in followed)
    replica = await cluster.replica(primary)
    names = [f"key-{number}" for number in range(20)]
    key, *_ = [name for name in names if await cluster.owner(name) is primary]
    router = Router(cluster.seeds, timeout=5, name="test")
    try:
        await router.execute("SET", key, 1)
        old = router.at(key)
        with capture_logs() as lines:
            await cluster.fail_over(key)
            await router.execute("SET", key, 2)
            assert router._cluster is not None
            await router._cluster.learn()
            await until(lambda: old.closed)
        [line] = [line for line in lines if line["event"] == "the primaries of the cluster have changed"]
        assert line["come"] == f"{LOOPBACK}:{replica.port}"
        assert line["gone"] == f"{LOOPBACK}:{primary.port}"
    finally:
        await router.close()
        await eventually(cluster.ready)
        await cluster.fail_over(key)
        await eventually(cluster.ready)


def test_the_doctor_looks_at_every_node(made: ClusterOfServers) -> None:
    run = eventbus("doctor", "--watch", "0", EVENTBUS_REDIS_URL=made.seeds)
    assert "has no replica: if it dies" in run.stdout
    assert all(f":{server.port}" in run.stdout for server in made.servers[:3])
    assert PASSWORD not in run.stdout + run.stderr


@pytest.mark.parametrize("gone", [0, 1])  # the one that has slot 0, and another
def test_the_doctor_tells_of_a_cluster_of_which_a_part_is_gone(gone: int, tmp_path: Path) -> None:
    with cluster_of(tmp_path, primaries=3, replicas=0) as cluster:
        asyncio.run(cluster.join())
        cluster.servers[gone].kill()
        run = eventbus("doctor", "--watch", "0", EVENTBUS_REDIS_URL=cluster.seeds)
        assert run.returncode == 3
        assert f"a node is away: Redis at redis://:***@127.0.0.1:{cluster.servers[gone].port}/0: " in run.stdout
        assert "has no replica: if it dies" in run.stdout


async def test_what_any_node_can_do_is_not_asked_of_one_that_is_held_for_dead(tmp_path: Path) -> None:
    """As a notice, or where to listen for those. Nobody is connected yet."""
    options = {"cluster-require-full-coverage": "no"}
    with cluster_of(tmp_path, primaries=3, replicas=0, options=options) as cluster:
        await cluster.join()
        dead = min(cluster.servers, key=lambda server: server.port)
        dead.kill()

        async def held_for_dead() -> bool:
            others = [server for server in cluster.servers if server is not dead]
            return all([(await cluster.nodes(server))[dead.port].failing for server in others])

        await eventually(held_for_dead)
        router = Router(cluster.seeds, timeout=5, name="test")
        try:
            assert (await router.anywhere().find()).place.port != dead.port
            assert await router.execute("PUBLISH", "news", "one") == 0
        finally:
            await router.close()


async def test_what_is_at_other_nodes_is_settled_while_one_is_away(tmp_path: Path) -> None:
    """In one call, as a group that reads several streams does it."""
    options = {"cluster-require-full-coverage": "no"}
    with cluster_of(tmp_path, primaries=3, replicas=0, options=options) as cluster:
        await cluster.join()
        transport = RedisTransport(cluster.seeds)
        try:
            await transport.connect()
            dead, held = await cluster.owner(stream_keys("eb", STREAMS[0]).stream), []
            for stream in STREAMS:
                await transport.append(outgoing(1, stream=stream))
                held += await receive(transport, consumer(stream=stream), 1)
            owners = {stream: await cluster.owner(stream_keys("eb", stream).stream) for stream in STREAMS}
            dead.kill()
            refusals = await transport.settle([Settlement(delivery, Ack()) for delivery in held])
            refused = {refusal.settlement.delivery.subscription.stream for refusal in refusals}
            assert refused == {stream for stream in STREAMS if owners[stream] is dead}
            assert all(isinstance(refusal.error, Unavailable) for refusal in refusals)
            states = await transport.inspect([stream for stream in STREAMS if owners[stream] is not dead])
            assert [state.groups[0].pending for state in states] == [0] * len(states)
            there = [refusal.settlement for refusal in refusals]
            with pytest.raises(Unavailable):  # there is nothing else in the call
                await transport.settle(there)
        finally:
            await transport.close()


async def test_a_cluster_of_which_a_part_is_gone_says_so(tmp_path: Path) -> None:
    with cluster_of(tmp_path, primaries=3, replicas=0) as cluster:
        await cluster.join()
        async with EventBus(cluster.seeds, publish_timeout=1.0) as bus:
            await bus.publish(Grown(number=1))
            (await cluster.owner(stream_keys("eb", "apple").stream)).kill()
            with pytest.raises(Unavailable):
                await bus.publish(Grown(number=2))


async def test_what_is_no_cluster_is_named(redis_url: str) -> None:
    url = redis_url.replace("redis://", "redis+cluster://")
    with pytest.raises(ConfigurationError, match=r"is no node of a cluster: name it by redis://127\.0\.0\.1:"):
        async with EventBus(url):
            pass


@pytest.mark.parametrize("url", ["redis+cluster://", "redis+cluster://a:1,,b:2/0", "redis+cluster:///0"])
def test_a_url_without_nodes_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="does not name nodes of a cluster"):
        EventBus(url)


def test_all_keys_of_a_group_and_its_stream_share_a_slot() -> None:
    keys = [*stream_keys("eb", "apple"), *stream_keys("eb", "apple").lanes, *group_keys("eb", "apple", "growers")]
    assert len({key_slot(key.encode()) for key in keys}) == 1
