"""What a failover would cost: whether the primary takes writes that no replica has.

Replication is asynchronous. A primary that is cut off from its replicas, or is replaced while it lives, goes on to
acknowledge, and all of that is gone when it comes back as a replica. With `min-replicas-to-write 1` it refuses instead.
"""

import asyncio
import re
from collections.abc import Collection, Iterator, Mapping

from eventbus.contract.inspection import Finding, Severity
from eventbus.errors import EventBusError
from eventbus.process.affinity import Affinity
from eventbus.process.safe_logging import get_logger
from eventbus.process.supervision import Background
from eventbus.redis.link import CONNECT_TIMEOUT, Link
from eventbus.redis.links import Links
from eventbus.redis.router import Router

REMEDY = (
    "on the primary and each replica: redis-cli CONFIG SET min-replicas-to-write 1, and min-replicas-max-lag 2; "
    "the same in their configuration files"
)
# With one replica for each primary, that setting would stop a primary whose replica is lost.
REMEDY_IN_CLUSTER = (
    "EVENTBUS_MIN_REPLICAS=1, or publish(event, replicas=1), waits for a replica and tells; where each primary has two "
    "replicas, min-replicas-to-write 1 as well"
)

WAIT = 1.0  # seconds for which replicas are waited for
LAG = 5  # seconds since a replica has acknowledged anything, above which it counts as behind
_REPLICA = re.compile(r"ip=(?P<ip>[^,]*),port=(?P<port>\d+),state=(?P<state>\w+),offset=\d+,lag=(?P<lag>-?\d+)")

log = get_logger("eventbus.redis")


class Replicas:
    """Waits until replicas have what was written before, on connections of its own: WAIT keeps one from all else.

    In a cluster each primary has replicas of its own: what counts is the fewest that any of those asked has."""

    def __init__(self, router: Router, namespace: str, affinity: Affinity) -> None:
        self._router = router
        self._channel = f"{namespace}:waits"
        self._affinity = affinity
        self._waits: dict[Link, _Waits] = {}
        self._closing = Background("replicas")

    async def have(self, count: int, keys: Collection[str]) -> int:
        """How many replicas have what was written under these keys: `count`, or fewer after WAIT seconds; 0 if nobody
        can say."""
        asked = {self._router.at(key) for key in keys}
        return min(await asyncio.gather(*(self._at(link).have(count, link.server_id) for link in asked)))

    def _at(self, link: Link) -> "_Waits":
        """Where that link leads, whatever keys move away from there."""
        waits = self._waits.get(link)
        if waits is None:
            timeout = WAIT + CONNECT_TIMEOUT
            own = Link(link.where, timeout=timeout, name="eventbus-replicas", affinity=self._affinity)
            waits = self._waits[link] = _Waits(own, self._channel)
        return waits

    def follow(self) -> None:
        """See Link.follow. What was for a node that has no part in the cluster any more ends."""
        for link in [each for each in self._waits if each.closed]:
            self._closing.start(self._waits.pop(link).close(), "close waits")
        for waits in self._waits.values():
            waits.link.follow()

    async def close(self) -> None:
        """Who still waits is told 0: the event is stored, and nobody asks any more who has it."""
        await asyncio.gather(*(waits.close() for waits in self._waits.values()), *self._closing.tasks)


class _Waits:
    """At one server. One wait at a time; those who come meanwhile share the next.

    channel  where something is sent right before: a wait is for what its own connection has written, and for all that
             was written before that"""

    def __init__(self, link: Link, channel: str) -> None:
        self.link = link
        self._channel = channel
        self._turn = asyncio.Lock()
        self._next: dict[int, asyncio.Task[tuple[int, str]]] = {}  # by what is wanted: not begun yet
        self._waits: set[asyncio.Task[tuple[int, str]]] = set()  # those, and the one that is under way

    async def have(self, count: int, primary: str) -> int:
        """See Replicas.have; 0 if it is not this primary any more."""
        if count not in self._next:
            self._next[count] = wait = asyncio.create_task(self._wait(count))
            self._waits.add(wait)
            wait.add_done_callback(self._waits.discard)
        got, asked = await asyncio.shield(self._next[count])
        return got if asked == primary else 0

    async def _wait(self, count: int) -> tuple[int, str]:
        async with self._turn:
            del self._next[count]  # who comes from now on may have written later than this asks for
            try:
                _, got = await self.link.pipeline([("PUBLISH", self._channel, ""), ("WAIT", count, round(WAIT * 1000))])
            except EventBusError:
                return 0, ""
            return (0, "") if isinstance(got, EventBusError) else (got, self.link.server_id)

    async def close(self) -> None:
        await self.link.close()
        if self._waits:
            await asyncio.wait(self._waits)


def examine(info: Mapping[str, str], needed: int | None) -> Iterator[Finding]:
    """What a primary's INFO says of its replicas; `needed`: see `needed_replicas`. Nothing, where it has none."""
    replicas = [found for name, text in info.items() if name[:5] == "slave" and (found := _REPLICA.match(text))]
    if not replicas and not needed:
        return
    if needed and len(replicas) < needed:
        told = f"{needed} must be there for it to take writes (min-replicas-to-write), and {len(replicas)} are"
        yield Finding("replicas", Severity.ERROR, told, "bring the replicas back: publishes are refused meanwhile")
    behind = [one for one in replicas if one["state"] != "online" or int(one["lag"]) > LAG]
    for one in behind:
        told = f"{one['ip']}:{one['port']} is {one['state']}, and has acknowledged nothing for {one['lag']} s"
        yield Finding("replicas", Severity.WARNING, told, "what it lacks is lost in a failover to it: see its log")
    if needed == 0:
        told = "the primary takes writes that no replica has: a failover can lose what was acknowledged"
        remedy = REMEDY_IN_CLUSTER if info.get("cluster_enabled") == "1" else REMEDY
        yield Finding("failover", Severity.WARNING, told, remedy)
    elif needed is None:
        yield Finding("failover", Severity.OK, "min-replicas-to-write is unknown: CONFIG is not allowed")
    else:
        yield Finding("failover", Severity.OK, f"no write without {needed} replicas")
    if replicas and not behind:
        yield Finding("replicas", Severity.OK, f"{len(replicas)}, in step")


async def needed_replicas(links: Links) -> int | None:
    """How many replicas must be there for the primary to take writes; None if it does not tell this login."""
    [found] = await links.pipeline([("CONFIG", "GET", "min-replicas-to-write")])
    return None if isinstance(found, EventBusError) or not found else int(found[1])


async def warn_unguarded(primary: Link, server: str, *, watched: bool) -> None:
    """One line if a failover can lose what was acknowledged. `watched`: by sentinels, so that there may be one even
    where no replica is connected right now. In a cluster, a primary that is cut off from the others stops by itself."""
    if primary.clustered:
        return
    [info] = await primary.pipeline([("INFO", "replication")])
    replicated = not isinstance(info, EventBusError) and b"\nslave0:" in info
    if (watched or replicated) and await needed_replicas(primary) == 0:
        log.warning(
            "a failover can lose what was acknowledged: the primary takes writes that no replica has",
            server=server,
            remedy=REMEDY,
        )
