"""A service of two servers, watched by three sentinels: real ones, on this machine."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from eventbus.contract.codec import pairs
from eventbus.embedded import EmbeddedRedis
from eventbus.embedded.directory import DataDirectory
from eventbus.embedded.ports import LOOPBACK
from eventbus.redis.link import Link
from eventbus.redis.sentinels import Sentinels
from tests.waiting import eventually

SERVICE = "main"
QUORUM = 2
PASSWORD = "known-to-both-servers"
DOWN_AFTER = 1_000  # ms without an answer after which a sentinel holds a server for dead


class EmbeddedSentinel(EmbeddedRedis):
    """The same program, as a sentinel. It rewrites its configuration by itself. It has no such databases."""

    name = "Sentinel"
    arguments = ("--sentinel",)

    def __init__(self, data_dir: Path, watched: EmbeddedRedis) -> None:
        super().__init__(data_dir, binary=watched.binary)
        self._watched = watched

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
            f"sentinel monitor {SERVICE} {LOOPBACK} {watched.port} {QUORUM}",
            f"sentinel auth-pass {SERVICE} {watched.password}",
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER}",
            f"sentinel failover-timeout {SERVICE} 5000",
        ]
        self.directory.remember(self._configuration.name, "\n".join(lines))


class Service:
    """`url` names the sentinels; `servers` the first primary, then its replica."""

    def __init__(self, servers: list[EmbeddedRedis], sentinels: list[EmbeddedSentinel]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        hosts = ",".join(f"{LOOPBACK}:{sentinel.port}" for sentinel in self.sentinels)
        own = f"sentinel_password={self.sentinels[0].password}"
        return f"redis+sentinel://:{self.servers[0].password}@{hosts}/{SERVICE}/0?{own}"

    async def primary(self) -> EmbeddedRedis:
        """As the sentinels name it. Raises Unavailable."""
        address = await Sentinels(self.url).find()
        [found] = [server for server in self.servers if f":{server.port}/" in address.url]
        return found

    async def ask(self, number: int, *command: str) -> Any:
        """A sentinel's answer."""
        link = Link(self.sentinels[number].url, timeout=5, name="test", primary=False)
        try:
            return await link.execute(*command)
        finally:
            await link.close()

    async def settled(self) -> None:
        """All sentinels know of the replica and of each other, and the replica is in step: a failover can begin."""

        async def ready(number: int) -> bool:
            seen = pairs(await self.ask(number, "SENTINEL", "MASTER", SERVICE))
            replicas = map(pairs, await self.ask(number, "SENTINEL", "REPLICAS", SERVICE))
            in_step = [replica for replica in replicas if replica[b"master-link-status"] == b"ok"]
            return len(in_step) == 1 and int(seen[b"num-other-sentinels"]) == len(self.sentinels) - 1

        for number in range(len(self.sentinels)):
            await eventually(partial(ready, number))


@contextmanager
def pair_of_servers(folder: Path, binary: Path, options: dict[str, str]) -> Iterator[list[EmbeddedRedis]]:
    """A primary and its replica, with one password. `options` of both."""
    with ExitStack() as running:
        # Without a file: Redis 7.0 refuses to end while it writes the one that it begins behind a full synchronization.
        quick = {"appendonly": "no", "repl-diskless-sync-delay": "0", "shutdown-timeout": "0"}
        options = {"masterauth": PASSWORD, **quick, **options}
        first = EmbeddedRedis(_with_password(folder / "a"), binary=binary, options=options)
        running.enter_context(first)
        follow = {**options, "replicaof": f"{LOOPBACK} {first.port}"}
        second = EmbeddedRedis(_with_password(folder / "b"), binary=binary, options=follow)
        running.enter_context(second)
        yield [first, second]


@contextmanager
def sentinel_service(folder: Path, binary: Path, options: dict[str, str]) -> Iterator[Service]:
    """`options` of the servers."""
    with pair_of_servers(folder, binary, options) as servers, ExitStack() as running:
        sentinels = [EmbeddedSentinel(_with_password(folder / f"s{number}"), servers[0]) for number in range(3)]
        for sentinel in sentinels:
            running.enter_context(sentinel)
        yield Service(servers, sentinels)


def _with_password(folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    DataDirectory(folder).remember("password", PASSWORD)
    return folder
