"""Every command to the server that has its key: one server, or a cluster of them.

A cluster is found out by what servers say: when one is connected, or when it answers that a key is elsewhere. A command
is sent again only where it is certain that nothing was done: the node has said that the key is not there, or was not
reached at all. Whatever else goes wrong is told: whether it was applied is for the caller to find out.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha1

from eventbus.contract.inspection import Finding
from eventbus.errors import EventBusError, Unavailable
from eventbus.process.affinity import Affinity
from eventbus.redis.address import Place, Where
from eventbus.redis.cluster import Cluster
from eventbus.redis.link import Link
from eventbus.redis.links import Argument, Command, Redirected, Reply, answered, key_of
from eventbus.redis.scripts import by_text
from eventbus.redis.seeds import Seeds
from eventbus.redis.where import locate
from eventbus.redis.whereabouts import Whereabouts

HOPS = 5  # times that a command is sent to where it was said to belong


class Router:
    """See eventbus.redis.links.Links. The arguments: see Link.

    where  what the URL means; for where the server of a key is, see `where_is`"""

    def __init__(
        self, where: str | Where, *, timeout: float, name: str, affinity: Affinity | None = None, primary: bool = True
    ) -> None:
        self.where = locate(where) if isinstance(where, str) else where
        self._make = partial(Link, timeout=timeout, name=name, affinity=affinity or Affinity(), primary=primary)
        self._home = self._make(self.where)
        self._cluster = self._clustered() if isinstance(self.where, Seeds) else None
        self._became = asyncio.Event()  # a cluster, since there is something to watch

    def _clustered(self) -> Cluster:
        return Cluster(self.where.name, self.where.seeds, lambda address, away: self._make(address, away=away))

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.where.name

    @property
    def database(self) -> int:
        """The number of the database that the URL names."""
        return self.where.database

    @property
    def server_id(self) -> str:
        """Names the primary, or all of them, and the time since each became one: see Link."""
        if self._cluster is None:
            return self._home.server_id
        names = sorted(link.server_id for link in self._cluster.primaries())
        return names[0] if len(names) == 1 else sha1(" ".join(names).encode(), usedforsecurity=False).hexdigest()

    # Commands ---------------------------------------------------------------------------------------------------------

    def begin(self, command: Command) -> asyncio.Future[Reply] | None:
        """As Links.begin."""
        cluster = self._cluster
        if cluster is None:
            return self._home.begin(command)
        key = command[1] if command[0] == "XADD" else key_of(command)  # the hot path, and where the key stands in it
        return (cluster.by_key.get(key) or self.at(None if key is None else str(key))).begin(command)

    async def execute(self, *command: Argument) -> Reply:
        """As Links.execute."""
        if self._cluster is None:
            try:
                return await self._home.execute(*command)
            except Redirected:
                pass
        [reply] = await self.each([command])
        if isinstance(reply, EventBusError):
            raise reply
        return reply

    async def pipeline(self, commands: list[Command]) -> list[Reply]:
        """As Links.pipeline."""
        return answered(await self.each(commands))

    async def each(self, commands: list[Command]) -> list[Reply]:
        """As Links.each."""
        cluster = self._cluster
        replies = await (self._home.each(commands) if cluster is None else self._send(cluster, commands))
        for _ in range(HOPS):
            moved = [(i, reply) for i, reply in enumerate(replies) if isinstance(reply, Redirected)]
            if not moved:
                return replies
            try:
                again = await self._follow([(commands[i], told) for i, told in moved])
            except Unavailable as error:  # the others have their replies
                again = [error] * len(moved)
            for (i, _), reply in zip(moved, again, strict=True):
                replies[i] = reply
        lost = Unavailable(self.where.name, "its nodes do not agree on where the key is")
        return [lost if isinstance(reply, Redirected) else reply for reply in replies]

    def told(self, command: Command) -> set[Argument]:
        """As Links.told."""
        return self.at(key_of(command)).told(command)

    async def nodes(self) -> Sequence[Link]:
        """As Links.nodes."""
        cluster = await self._known()
        return [self._home] if cluster is None else cluster.primaries()

    async def ready(self, key: str = "") -> None:
        """As Links.ready. Of a cluster without a key: it is known."""
        if await self._known() is not None and key:
            await self.at(key).ready()

    # Where things are -------------------------------------------------------------------------------------------------

    def at(self, key: str | None) -> Link:
        """The link to the server that has this key, as far as is known; to any of them for None."""
        if self._cluster is None:
            return self._home
        return self._cluster.any() if key is None else self._cluster.link_of(key)

    def beside(self, link: Link) -> Link:
        """The link to the same server as another link."""
        if self._cluster is None or link.address is None:
            return self._home
        return self._cluster.link_at(link.address.place)

    def correct(self, told: Redirected) -> None:
        """A server has said over another connection where a key is."""
        if self._cluster is not None:
            self._cluster.correct(told)

    def url_of(self, key: str) -> str:
        """Of the server that has this key, with all secrets; from any thread. Raises Unavailable if none is known."""
        place = self._cluster and self._cluster.place_of(key)
        return self.url_at(place) if place else self.where.url

    def url_at(self, place: Place) -> str:
        """Of the node of the cluster that listens there."""
        return self.where.url if self._cluster is None else self._cluster.address_at(place).url

    def where_is(self, key: str) -> Where:
        """Where the server of this key is, whoever that is."""
        return Whereabouts(self.where, self._known, lambda cluster, _: cluster.place_of(key))

    def anywhere(self) -> Where:
        """Where any server is: one stays where he is as long as that node has anything."""
        return Whereabouts(self.where, self._known, Cluster.stay)

    async def _known(self) -> Cluster | None:
        """None for a single server. Raises Unavailable while that is not known."""
        if self._cluster is None:
            await self._home.ready()
            if not self._home.clustered:
                return None
        if self._cluster is None:  # nor has anybody else found out meanwhile
            self._cluster = self._clustered()
            self._became.set()
        if not self._cluster.map.places:
            await self._cluster.learn()
        return self._cluster

    # Life -------------------------------------------------------------------------------------------------------------

    async def watch(self, moved: Callable[[], None]) -> None:
        """For ever: call `moved` whenever something is where it was not before. At an address that stays, a node of a
        cluster may be found one day."""
        if self._cluster is None:
            await self.where.watch(moved)
            await self._became.wait()
            moved()
        if self._cluster is not None:
            await self._cluster.watch(moved)

    def follow(self) -> None:
        """See Link.follow. The links to nodes of a cluster end with the nodes' part in it."""
        self._home.follow()

    async def examine(self) -> list[Finding]:
        """What is to be said about those who know where the primary is, or about the cluster."""
        cluster = await self._known()
        return await self.where.examine() if cluster is None else list(cluster.map.examine())

    async def close(self) -> None:
        """No command is sent any more."""
        await self._home.close()
        if self._cluster is not None:
            await self._cluster.close()

    # Sending ----------------------------------------------------------------------------------------------------------

    async def _send(self, cluster: Cluster, commands: Sequence[Command]) -> list[Reply]:
        """To each node its own. What did not reach its node is sent once more: another may have taken its place."""
        if not cluster.map.places:
            await cluster.learn()
        replies = await self._try(commands)
        unsent = [i for i, reply in enumerate(replies) if isinstance(reply, _Unsent)]
        if unsent:
            with suppress(Unavailable):
                await cluster.learn()
            again = await self._try([commands[i] for i in unsent])
            for i, reply in zip(unsent, again, strict=True):
                replies[i] = reply
        if commands and all(isinstance(reply, _Unsent) for reply in replies):
            raise replies[0]
        return replies

    async def _try(self, commands: Sequence[Command]) -> list[Reply]:
        """An _Unsent in place of the reply to what did not leave."""
        parts: dict[Link, list[int]] = {}
        keys = [key_of(command) for command in commands]
        common = next((key for key in keys if key is not None), None)
        for i, key in enumerate(keys):
            parts.setdefault(self.at(common if key is None else key), []).append(i)
        asked = [_each(link, [commands[i] for i in some]) for link, some in parts.items()]
        told = await asyncio.gather(*asked) if len(asked) > 1 else [await asked[0]] if asked else []
        replies: list[Reply] = [None] * len(commands)
        for some, found in zip(parts.values(), told, strict=True):
            for i, reply in zip(some, found, strict=True):
                replies[i] = reply
        return replies

    async def _follow(self, moved: Sequence[tuple[Command, Redirected]]) -> list[Reply]:
        """The replies of those who have the keys. Raises Unavailable."""
        cluster = await self._known()
        if cluster is None:
            raise Unavailable(self.where.name, "it is no cluster, and says that a key is elsewhere")
        replies: list[Reply] = [told for _, told in moved]
        for _, told in moved:
            cluster.correct(told)
        plain = [i for i, (_, told) in enumerate(moved) if not told.asking]
        for i, reply in zip(plain, await self._send(cluster, [moved[i][0] for i in plain]), strict=True):
            replies[i] = reply
        for i, (command, told) in enumerate(moved):
            if told.asking:
                text = by_text(command) if command[0] == "EVALSHA" else command  # ASKING is for one command alone
                _, replies[i] = await _each(cluster.link_at(told.place), [("ASKING",), text])
        return replies


class _Unsent(Unavailable):
    """Nothing was sent."""


async def _each(link: Link, commands: list[Command]) -> list[Reply]:
    try:
        return await link.each(commands)
    except Unavailable as error:
        return [_Unsent(error.server, error.detail)] * len(commands)
