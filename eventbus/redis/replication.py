"""What a failover would cost: whether the primary takes writes that no replica has.

Replication is asynchronous. A primary that is cut off from its replicas, or is replaced while it lives, goes on to
acknowledge, and all of that is gone when it comes back as a replica. With `min-replicas-to-write 1` it refuses instead.
"""

from eventbus.errors import EventBusError
from eventbus.process.safe_logging import get_logger
from eventbus.redis.link import Link

REMEDY = (
    "on the primary and each replica: redis-cli CONFIG SET min-replicas-to-write 1, and min-replicas-max-lag 2; "
    "the same in their configuration files"
)

log = get_logger("eventbus.redis")


async def needed_replicas(link: Link) -> int | None:
    """How many replicas must be there for the primary to take writes; None if it does not tell this login."""
    [found] = await link.pipeline([("CONFIG", "GET", "min-replicas-to-write")])
    return None if isinstance(found, EventBusError) or not found else int(found[1])


async def warn_unguarded(link: Link, server: str) -> None:
    """One line if a failover can lose what was acknowledged."""
    if await needed_replicas(link) == 0:
        log.warning(
            "a failover can lose what was acknowledged: the primary takes writes that no replica has",
            server=server,
            remedy=REMEDY,
        )
