"""A cluster whose nodes talk to each other through proxies, each from an address of its own: so one of them can be cut
off from all others, and clients still reach it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from eventbus.embedded import EmbeddedRedis
from eventbus.embedded.ports import LOOPBACK, free_port
from tests.cluster import ClusterOfServers, cluster_of
from tests.proxy import Proxy

NODES = 6


class Buses:
    """`proxies` before the nodes' buses, and `homes`, from where they come, in the order of the servers."""

    def __init__(self, cluster: ClusterOfServers, proxies: list[Proxy], homes: list[str]) -> None:
        self.cluster = cluster
        self._proxies, self._homes = proxies, homes

    def cut_off(self, node: EmbeddedRedis) -> None:
        """Nothing gets to it from other nodes, or from it to them."""
        cut = self.cluster.servers.index(node)
        for number, proxy in enumerate(self._proxies):
            for home in self._homes if number == cut else [self._homes[cut]]:
                proxy.shut_out(home)

    def heal(self) -> None:
        for proxy in self._proxies:
            proxy.let_in()


@asynccontextmanager
async def divided_cluster(folder: Path, binary: Path) -> AsyncIterator[Buses]:
    """Three primaries, each with a replica; joined."""
    homes = [f"127.0.0.{10 + number}" for number in range(NODES)]
    options, proxies = list[dict[str, str]](), list[Proxy]()
    async with AsyncExitStack() as running:
        for home in homes:
            own = free_port()
            proxies.append(await running.enter_async_context(Proxy(f"tcp://{LOOPBACK}:{own}")))
            told = str(urlsplit(proxies[-1].url).port)
            options.append({"cluster-port": str(own), "cluster-announce-bus-port": told, "bind-source-addr": home})
        everywhere = {"cluster-announce-ip": LOOPBACK}
        cluster = running.enter_context(cluster_of(folder, binary, options=everywhere, each=options))
        await cluster.join()
        yield Buses(cluster, proxies, homes)
