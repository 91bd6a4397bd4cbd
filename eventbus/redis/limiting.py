"""Limits that hold across processes. See scripts/admit.lua and spend.lua for the rules."""

from collections.abc import Iterable, Sequence

import orjson

from eventbus.contract.inspection import InLine
from eventbus.contract.limiting import ASK_AGAIN, Answer, Bound, Request, Scope, Spent
from eventbus.contract.limits import InFlight, RateLimit, in_words
from eventbus.redis import scripts
from eventbus.redis.keys import limit_keys, lines_key
from eventbus.redis.links import Command, Links, Reply, ReplyError
from eventbus.redis.scripts import ms


async def admit(links: Links, namespace: str, requests: Sequence[Request], most: int) -> list[Answer]:
    """See eventbus.contract.limiting.Limiting.admit."""
    if not requests:
        return []
    [reply] = await scripts.run(links, [admission(namespace, requests, most)])
    if not isinstance(reply, ReplyError):
        return answers(requests, scripts.checked([reply])[0])
    # One request has made the script fail before it wrote anything. Ask for each alone, so that the others may start.
    commands = [admission(namespace, [request], int(i < most)) for i, request in enumerate(requests)]
    replies = await scripts.run(links, commands)
    return [_one_answer(request, reply) for request, reply in zip(requests, replies, strict=True)]


async def stay(links: Links, namespace: str, requests: Sequence[Request]) -> None:
    """See eventbus.contract.limiting.Limiting.stay."""
    lease = ms(max((request.lease for request in requests), default=0.0))
    await scripts.run_all(
        links, [scripts.STAY((key,), lease, *who) for key, who in _running(namespace, requests).items()]
    )


async def leave(links: Links, namespace: str, requests: Sequence[Request]) -> None:
    """See eventbus.contract.limiting.Limiting.leave."""
    await scripts.run_all(links, [("ZREM", key, *who) for key, who in _running(namespace, requests).items()])


async def in_lines(links: Links, namespace: str, group: str, member: str) -> list[InLine]:
    """The lines in which a delivery waits."""
    told = await links.execute("ZRANGE", lines_key(namespace, group), 0, -1)
    lines = [orjson.loads(each) for each in told]
    keys = [limit_keys(namespace, Scope(group, number, key), "starts")[1] for number, key, _ in lines]
    ranks = await scripts.run_all(links, [("ZRANK", key, member) for key in keys])
    return [InLine(words, key, rank) for (_, key, words), rank in zip(lines, ranks, strict=True) if rank is not None]


async def spend(links: Links, key: str, limit: RateLimit, wanted: int) -> Spent:
    """See eventbus.contract.limiting.Limiting.spend."""
    granted, left, opens = await scripts.call(links, scripts.SPEND((key,), limit.count, ms(limit.per), wanted))
    return Spent(granted, left, opens / 1000)


def _running(namespace: str, requests: Iterable[Request]) -> dict[str, list[str]]:
    """The members that have places in flight, by the key of these places."""
    found: dict[str, list[str]] = {}
    for request in requests:
        for scope, limit in request.bounds:
            if isinstance(limit, InFlight):
                found.setdefault(limit_keys(namespace, scope, "running")[0], []).append(request.member)
    return found


def admission(namespace: str, requests: Sequence[Request], most: int) -> Command:
    """The call of scripts/admit.lua."""
    numbers: dict[Bound, int] = {}
    keys, told, members = (
        [lines_key(namespace, requests[0].bounds[0].scope.group)],
        list[str | int](),
        list[str | int](),
    )
    for request in requests:
        members += (request.member, len(request.bounds))
        for bound in request.bounds:
            number = numbers.get(bound)
            if number is None:
                number = numbers[bound] = len(numbers) + 1
                keys += limit_keys(
                    namespace, bound.scope, "starts" if isinstance(bound.limit, RateLimit) else "running"
                )
                told += _told(bound)
            members.append(number)
    lease = ms(requests[0].lease)
    return scripts.ADMIT(tuple(keys), lease, most, ms(ASK_AGAIN), len(numbers), *told, *members)


def _told(bound: Bound) -> tuple[str | int, ...]:
    limit, (_, number, key) = bound.limit, bound.scope
    kind, span = ("rate", ms(limit.per)) if isinstance(limit, RateLimit) else ("places", 0)
    by_key = limit.by is not None
    return kind, limit.count, span, int(by_key), orjson.dumps([number, key, in_words(limit)]).decode() if by_key else ""


def answers(requests: Sequence[Request], flat: Sequence[int]) -> list[Answer]:
    """The reply of scripts/admit.lua to these requests, as one Answer for each."""
    bounds = list(dict.fromkeys(bound for request in requests for bound in request.bounds))
    now, *pairs = flat
    return [
        Answer(False, wait / 1000, bounds[number - 1], now + wait) if number else Answer(wait < 0)
        for wait, number in zip(pairs[::2], pairs[1::2], strict=True)
    ]


def _one_answer(request: Request, reply: Reply) -> Answer:
    if isinstance(reply, ReplyError):
        return Answer(False, error=str(reply))
    return answers([request], scripts.checked([reply])[0])[0]
