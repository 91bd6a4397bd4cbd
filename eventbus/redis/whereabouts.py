"""Where the server of a key is, for a connection of its own: in a cluster that changes."""

from collections.abc import Awaitable, Callable, Sequence

from eventbus.contract.inspection import Finding
from eventbus.redis.address import Address, Place, Where
from eventbus.redis.cluster import Cluster

Choice = Callable[[Cluster, Place | None], Place | None]


class Whereabouts:
    """A Where. where: the URL's, which holds for a single server.

    known   the cluster, None for a single server; raises Unavailable while that is not known
    choose  the node, given the cluster and the node of now; None if nobody has the key"""

    def __init__(self, where: Where, known: Callable[[], Awaitable[Cluster | None]], choose: Choice) -> None:
        self._where = where
        self._known = known
        self._choose = choose
        self._cluster: Cluster | None = None
        self._place: Place | None = None
        self._moved = 0
        self.name = where.name
        self.database = where.database
        self.seeds: Sequence[Address] = ()

    @property
    def moves(self) -> int:
        """How often it has moved, as far as somebody has looked here."""
        place = self._place and self._cluster and self._choose(self._cluster, self._place)
        if place and place != self._place:
            self._place = place
            self._moved += 1
        return self._moved + self._where.moves

    @property
    def url(self) -> str:
        """With all secrets."""
        place = self._cluster and self._choose(self._cluster, self._place)
        return self._cluster.address_at(place).url if self._cluster and place else self._where.url

    async def find(self) -> Address:
        """Raises Unavailable, or ConfigurationError."""
        cluster = self._cluster = await self._known()
        if cluster is None:
            return await self._where.find()
        self._place = self._choose(cluster, None) or cluster.stay(None)
        return cluster.address_at(self._place)

    async def watch(self, moved: Callable[[], None]) -> None:
        """Whoever has the cluster watches it."""

    async def examine(self) -> list[Finding]:
        """Nothing beside what is to be said of the cluster."""
        return []
