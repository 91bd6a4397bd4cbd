"""Limits that hold across processes. See scripts/admit.lua and spend.lua for the rules."""

from collections.abc import Sequence

from eventbus.limits import RateLimit
from eventbus.redis import scripts
from eventbus.redis.keys import limit_keys
from eventbus.redis.link import Link
from eventbus.redis.scripts import Command, ms
from eventbus.transport import ASK_AGAIN, Request, Spent


async def admit(link: Link, namespace: str, requests: Sequence[Request]) -> list[list[float]]:
    """See eventbus.transport.Transport.admit."""
    replies = await scripts.run_all(link, [_admission(namespace, request) for request in requests])
    return [[max(0.0, wait / 1000) for wait in waits] for waits in replies]


async def stay(link: Link, namespace: str, requests: Sequence[Request]) -> None:
    await scripts.run_all(
        link,
        [scripts.STAY((limit_keys(namespace, r.scope)[1],), ms(r.lease), *r.members) for r in requests],
    )


async def leave(link: Link, namespace: str, requests: Sequence[Request]) -> None:
    await scripts.run_all(link, [("ZREM", limit_keys(namespace, r.scope)[1], *r.members) for r in requests])


async def spend(link: Link, key: str, limit: RateLimit, wanted: int) -> Spent:
    """See eventbus.transport.Transport.spend."""
    granted, left, opens = await scripts.call(link, scripts.SPEND((key,), limit.count, ms(limit.per), wanted))
    return Spent(granted, left, opens / 1000)


def _admission(namespace: str, request: Request) -> Command:
    limit = request.limit
    rate: tuple[int | str, ...] = (
        (limit.count, ms(limit.per), "") if isinstance(limit, RateLimit) else ("", 0, limit.count)
    )
    # Where a key has its own limit, the others are not kept waiting: who is refused rests until his turn.
    line = int(isinstance(limit, RateLimit) and limit.by is not None)
    return scripts.ADMIT(
        limit_keys(namespace, request.scope), *rate, ms(request.lease), line, ms(ASK_AGAIN), *request.members
    )
