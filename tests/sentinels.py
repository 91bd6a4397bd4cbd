"""A service of two servers, watched by three sentinels: real ones, on this machine."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from eventbus.contract.codec import pairs
from eventbus.embedded import EmbeddedRedis
from eventbus.embedded.directory import DataDirectory
from eventbus.embedded.ports import LOOPBACK
from eventbus.redis.link import Link
from eventbus.redis.sentinels import Sentinels
from tests.proxy import Proxy
from tests.waiting import eventually

SERVICE = "main"
QUORUM = 2
PASSWORD = "known-to-both-servers"
HOUSE = "127.0.0.2"  # from where replicas and sentinels come, where they are to be told from clients
DOWN_AFTER = 1_000  # ms without an answer after which a sentinel holds a server for dead


class EmbeddedSentinel(EmbeddedRedis):
    """The same program, as a sentinel. It rewrites its configuration by itself. It has no such databases.

    port  where it finds what it watches, and sends clients to; house: the address from which it comes there"""

    name = "Sentinel"
    arguments = ("--sentinel",)

    def __init__(self, data_dir: Path, watched: EmbeddedRedis, *, port: int = 0, house: str = LOOPBACK) -> None:
        super().__init__(data_dir, binary=watched.binary)
        self._watched = watched
        self._watched_port = port or watched.port
        self._house = house

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}"

    def _prepare(self) -> None:
        watched = self._watched
        lines = [
            f"port {self.port}",
            f"bind {LOOPBACK}",
            f'dir "{self.directory.path}"',
            f"requirepass {self.password}",
            f"sentinel sentinel-pass {self.password}",
            f"bind-source-addr {self._house}",
            f"sentinel announce-ip {LOOPBACK}",
            f"sentinel monitor {SERVICE} {LOOPBACK} {self._watched_port} {QUORUM}",
            f"sentinel auth-pass {SERVICE} {watched.password}",
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER}",
            f"sentinel failover-timeout {SERVICE} 5000",
        ]
        self.directory.remember(self._configuration.name, "\n".join(lines))


class Service:
    """`url` names the sentinels; `servers` the first primary, then its replicas. `ports`: where those are reached."""

    def __init__(
        self, servers: list[EmbeddedRedis], sentinels: list[EmbeddedSentinel], ports: list[int] | None = None
    ) -> None:
        self.servers = servers
        self.sentinels = sentinels
        self._ports = ports or [server.port for server in servers]

    @property
    def url(self) -> str:
        hosts = ",".join(f"{LOOPBACK}:{sentinel.port}" for sentinel in self.sentinels)
        own = f"sentinel_password={self.sentinels[0].password}"
        return f"redis+sentinel://:{self.servers[0].password}@{hosts}/{SERVICE}/0?{own}"

    async def primary(self) -> EmbeddedRedis:
        """As the sentinels name it. Raises Unavailable."""
        address = await Sentinels(self.url).find()
        at = dict(zip(self._ports, self.servers, strict=True))
        [found] = [server for port, server in at.items() if f":{port}/" in address.url]
        return found

    async def ask(self, number: int, *command: str) -> Any:
        """A sentinel's answer."""
        link = Link(self.sentinels[number].url, timeout=5, name="test", primary=False)
        try:
            return await link.execute(*command)
        finally:
            await link.close()

    async def settled(self) -> None:
        """All sentinels know of the replicas and of each other, and those are in step: a failover can begin."""

        async def ready(number: int) -> bool:
            seen = pairs(await self.ask(number, "SENTINEL", "MASTER", SERVICE))
            replicas = map(pairs, await self.ask(number, "SENTINEL", "REPLICAS", SERVICE))
            in_step = [replica for replica in replicas if replica[b"master-link-status"] == b"ok"]
            return (
                len(in_step) == len(self.servers) - 1 and int(seen[b"num-other-sentinels"]) == len(self.sentinels) - 1
            )

        for number in range(len(self.sentinels)):
            await eventually(partial(ready, number))


# Without a file: Redis 7.0 refuses to end while it writes the one that it begins behind a full synchronization.
_QUICK = {"masterauth": PASSWORD, "appendonly": "no", "repl-diskless-sync-delay": "0", "shutdown-timeout": "0"}


@contextmanager
def pair_of_servers(folder: Path, binary: Path, options: dict[str, str]) -> Iterator[list[EmbeddedRedis]]:
    """A primary and its replica, with one password. `options` of both."""
    with ExitStack() as running:
        options = {**_QUICK, **options}
        first = running.enter_context(_server(folder / "a", binary, options))
        follow = {**options, "replicaof": f"{LOOPBACK} {first.port}"}
        yield [first, running.enter_context(_server(folder / "b", binary, follow))]


@contextmanager
def sentinel_service(folder: Path, binary: Path, options: dict[str, str]) -> Iterator[Service]:
    """`options` of the servers."""
    with pair_of_servers(folder, binary, options) as servers, ExitStack() as running:
        sentinels = [EmbeddedSentinel(_with_password(folder / f"s{number}"), servers[0]) for number in range(3)]
        for sentinel in sentinels:
            running.enter_context(sentinel)
        yield Service(servers, sentinels)


@asynccontextmanager
async def divided_service(folder: Path, binary: Path, options: dict[str, str]) -> AsyncIterator[tuple[Service, Proxy]]:
    """As `sentinel_service`, with two replicas, and with a proxy before the first primary that all go through.
    `shut_out(HOUSE)` cuts that off from its replicas and from all sentinels, and clients still reach it."""
    with ExitStack() as running:
        options = {**_QUICK, **options}
        first = running.enter_context(_server(folder / "a", binary, options))
        async with Proxy(first.url) as proxy:
            port = int(urlsplit(proxy.url).port or 0)
            follow = {**options, "replicaof": f"{LOOPBACK} {port}", "bind-source-addr": HOUSE}
            replicas = [running.enter_context(_server(folder / name, binary, follow)) for name in ("b", "c")]
            await eventually(partial(_followed, first))  # else a sentinel looks again after ten seconds
            homes = [_with_password(folder / f"s{number}") for number in range(3)]
            sentinels = [EmbeddedSentinel(home, first, port=port, house=HOUSE) for home in homes]
            for sentinel in sentinels:
                running.enter_context(sentinel)
            yield Service([first, *replicas], sentinels, [port, *(each.port for each in replicas)]), proxy


async def _followed(primary: EmbeddedRedis) -> bool:
    """By two replicas in step."""
    link = Link(primary.url, timeout=5, name="test")
    try:
        told: bytes = await link.execute("INFO", "replication")
        return told.count(b"state=online") == 2
    finally:
        await link.close()


def _server(folder: Path, binary: Path, options: dict[str, str]) -> EmbeddedRedis:
    return EmbeddedRedis(_with_password(folder), binary=binary, options=options)


def _with_password(folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    DataDirectory(folder).remember("password", PASSWORD)
    return folder
