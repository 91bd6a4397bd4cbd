"""A cluster of three primaries, each with a replica: real ones, on this machine.

python -m tests.cluster [--redis] COMMAND…     runs the command with EVENTBUS_TEST_REDIS_URL naming such a cluster
python -m tests.cluster python -m pytest tests/conformance -k "not memory-"
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from redis.crc import key_slot

from eventbus.embedded import EmbeddedRedis
from eventbus.embedded.directory import DataDirectory
from eventbus.embedded.ports import LOOPBACK, free_port
from eventbus.redis.address import Place
from eventbus.redis.cluster_map import SLOTS, Node, read_view
from eventbus.redis.link import Link
from tests.waiting import eventually

PASSWORD = "known-to-all-nodes"
NODE_TIMEOUT = 2_000  # ms without an answer after which a node is held for dead

QUICK = {
    "cluster-enabled": "yes",
    "cluster-node-timeout": str(NODE_TIMEOUT),
    "cluster-replica-validity-factor": "0",
    "masterauth": PASSWORD,
    "appendonly": "no",
    "repl-diskless-sync-delay": "0",
    "shutdown-timeout": "0",
}


class ClusterOfServers:
    """`url` names one node, `seeds` some of them as a cluster."""

    def __init__(self, servers: Sequence[EmbeddedRedis], primaries: int) -> None:
        self.servers = servers
        self._primaries = primaries

    @property
    def url(self) -> str:
        return self.servers[0].url

    @property
    def seeds(self) -> str:
        hosts = ",".join(f"{LOOPBACK}:{server.port}" for server in self.servers[:3])
        return f"redis+cluster://:{PASSWORD}@{hosts}/0"

    async def ask(self, server: EmbeddedRedis, *commands: tuple[str | bytes | int, ...]) -> list[Any]:
        """A node's answers."""
        link = Link(server.url, timeout=10, name="test", primary=False)
        try:
            return await link.pipeline(list(commands))
        finally:
            await link.close()

    async def nodes(self, server: EmbeddedRedis | None = None) -> dict[int, Node]:
        """As a node sees them, by their ports."""
        server = server or next(each for each in self.servers if each.running)
        nodes, slots = await self.ask(server, ("CLUSTER", "NODES"), ("CLUSTER", "SLOTS"))
        return {node.place.port: node for node in read_view(nodes, slots, Place(LOOPBACK, server.port))}

    def at(self, port: int) -> EmbeddedRedis:
        [found] = [server for server in self.servers if server.port == port]
        return found

    async def owner(self, key: str) -> EmbeddedRedis:
        """The primary that has this key."""
        slot = key_slot(key.encode())
        for port, node in (await self.nodes()).items():
            if any(first <= slot <= last for first, last in node.ranges):
                return self.at(port)
        raise LookupError(f"nobody has slot {slot}")

    async def replica(self, primary: EmbeddedRedis) -> EmbeddedRedis:
        """Of this primary."""
        nodes = await self.nodes()
        [port] = [port for port, node in nodes.items() if node.of == nodes[primary.port].id]
        return self.at(port)

    async def fail_over(self, key: str) -> EmbeddedRedis:
        """As an operator plans it: the replica takes over, and is returned when it has."""
        primary = await self.owner(key)
        replica = await self.replica(primary)
        await self.ask(replica, ("CLUSTER", "FAILOVER"))

        async def taken() -> bool:
            return await self.owner(key) is replica

        await eventually(taken)
        return replica

    async def move(self, key: str, to: EmbeddedRedis, *, at_once: bool) -> None:
        """The slot of a key, to another primary: as Valkey 9 does it, `at_once`, or key by key."""
        source, slot = await self.owner(key), key_slot(key.encode())
        nodes = await self.nodes()
        ids = {server: nodes[server.port].id for server in (source, to)}
        if at_once:
            [begun] = await self.ask(source, ("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", ids[to]))
            assert begun == b"OK", begun
        else:
            async with self.moving(key, to) as carry:
                await carry(1_000)

        async def there() -> bool:
            return await self.owner(key) is to

        await eventually(there)

    @asynccontextmanager
    async def moving(self, key: str, to: EmbeddedRedis) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
        """The slot of a key is on its way inside the block, key by key: at the end it is there. What is yielded carries
        so many keys, if there are so many."""
        source, slot = await self.owner(key), key_slot(key.encode())
        nodes = await self.nodes()
        ids = {server: nodes[server.port].id for server in (source, to)}

        async def carry(count: int) -> None:
            [keys] = await self.ask(source, ("CLUSTER", "GETKEYSINSLOT", slot, count))
            where = (LOOPBACK, to.port, "", 0, 5_000, "AUTH", PASSWORD)
            for each in keys:
                [moved] = await self.ask(source, ("MIGRATE", *where, "KEYS", each))
                assert moved == b"OK", moved

        await self.ask(to, ("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source]))
        await self.ask(source, ("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[to]))
        yield carry
        await carry(1_000)
        for server in (to, source):
            await self.ask(server, ("CLUSTER", "SETSLOT", slot, "NODE", ids[to]))

    async def ready(self) -> bool:
        """Whether all that run take commands, and follow whom they should."""
        for server in self.servers:
            if server.running:
                info, replication = await self.ask(server, ("CLUSTER", "INFO"), ("INFO", "replication"))
                if b"cluster_state:ok" not in info or b"master_link_status:down" in replication:
                    return False
        return True

    async def join(self) -> None:
        """Make them one, and wait until it takes commands and each replica is in step."""
        servers, primaries = self.servers, self._primaries
        share = SLOTS // primaries
        for number, server in enumerate(servers[:primaries]):
            last = SLOTS - 1 if number == primaries - 1 else (number + 1) * share - 1
            added = ("CLUSTER", "ADDSLOTSRANGE", number * share, last)
            epoch = ("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            assert await self.ask(server, added, epoch) == [b"OK", b"OK"]
        for server in servers[1:]:
            buses = server.options.get("cluster-announce-bus-port", server.options["cluster-port"])
            await self.ask(servers[0], ("CLUSTER", "MEET", LOOPBACK, server.port, buses))

        async def know_each_other(server: EmbeddedRedis) -> bool:
            return len(await self.nodes(server)) == len(servers)

        for server in servers:
            await eventually(partial(know_each_other, server))
        ids = {port: node.id for port, node in (await self.nodes()).items()}
        for number, server in enumerate(servers[primaries:]):
            [made] = await self.ask(server, ("CLUSTER", "REPLICATE", ids[servers[number % primaries].port]))
            assert made == b"OK", made

        async def followed() -> bool:
            seen = [await self.nodes(server) for server in servers]
            return all(sum(bool(node.of) for node in nodes.values()) == len(servers) - primaries for nodes in seen)

        await eventually(followed)
        await eventually(self.ready)


@contextmanager
def cluster_of(
    folder: Path,
    binary: Path | None = None,
    primaries: int = 3,
    replicas: int = 3,
    *,
    options: dict[str, str] | None = None,
    each: Sequence[dict[str, str]] = (),
) -> Iterator[ClusterOfServers]:
    """`options` of all nodes, and those of each."""
    servers = []
    with ExitStack() as running:
        for number in range(primaries + replicas):
            home = folder / f"node-{number}"
            home.mkdir(mode=0o700)
            DataDirectory(home).remember("password", PASSWORD)
            own = each[number] if each else {"cluster-port": str(free_port())}
            server = EmbeddedRedis(home, binary=binary, options={**QUICK, **(options or {}), **own})
            servers.append(running.enter_context(server))
        yield ClusterOfServers(servers, primaries)
