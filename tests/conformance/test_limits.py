"""Limits across processes, as the transports keep them."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from eventbus.contract.broker import Broker
from eventbus.contract.limiting import ASK_AGAIN, Answer, Bound, Request, Scope
from eventbus.contract.limits import InFlight, Limit, RateLimit


def request(member: str, limit: Limit, *, key: str = "", lease: float = 10.0) -> Request:
    return Request(member, [Bound(Scope("billing", 0, key), limit)], lease)


async def ask(
    transport: Broker, limit: Limit, members: Sequence[str], *, key: str = "", lease: float = 10.0
) -> list[Answer]:
    return await transport.admit([request(member, limit, key=key, lease=lease) for member in members], 1_000)


async def waits(transport: Broker, limit: Limit, *members: str, key: str = "") -> list[float]:
    return [answer.wait for answer in await ask(transport, limit, members, key=key)]


async def admitted(transport: Broker, limit: Limit, *members: str, key: str = "", lease: float = 10.0) -> list[str]:
    answers = await ask(transport, limit, members, key=key, lease=lease)
    return [member for member, answer in zip(members, answers, strict=True) if answer.admitted]


async def test_a_rate_holds_in_every_span(transport: Broker) -> None:
    limit = RateLimit(5, per=0.2)
    starts: list[tuple[float, float]] = []
    until = time.monotonic() + 1.1
    while time.monotonic() < until:
        asked = time.monotonic()
        granted = len(await admitted(transport, limit, "a", "b", "c"))
        starts += [(asked, time.monotonic())] * granted
        await asyncio.sleep(0.003)
    assert len(starts) >= 10
    # It was granted at some time between the two: however busy the machine is, at least a span lies between these.
    for (asked, _), (_, answered) in zip(starts, starts[5:], strict=False):
        assert answered - asked >= 0.2


async def test_who_is_refused_is_told_when_to_come(transport: Broker) -> None:
    limit = RateLimit(2, per=0.5)
    told = await waits(transport, limit, "a", "b", "c")
    assert told[:2] == [0.0, 0.0]
    assert 0.3 < told[2] <= 0.54
    await asyncio.sleep(told[2] + 0.01)
    assert await admitted(transport, limit, "c") == ["c"]


async def test_keys_have_limits_of_their_own(transport: Broker) -> None:
    limit = RateLimit(1, per=60.0, by="organization")
    assert await admitted(transport, limit, "a", key="org-1") == ["a"]
    assert await admitted(transport, limit, "b", key="org-1") == []
    assert await admitted(transport, limit, "b", key="org-2") == ["b"]


async def test_who_stands_in_line_is_not_overtaken(transport: Broker) -> None:
    limit = RateLimit(1, per=0.1, by="organization")
    told = await waits(transport, limit, "a", "b", "c", key="o")
    assert told[0] == 0.0
    assert 0.0 < told[1] < told[2], "each has a time of its own"
    await asyncio.sleep(told[1] + 0.01)  # loops count in milliseconds, and round
    assert await admitted(transport, limit, "newcomer", key="o") == []
    assert await admitted(transport, limit, "b", key="o") == ["b"]
    await asyncio.sleep(told[2] - told[1] + 0.01)
    assert await admitted(transport, limit, "c", key="o") == ["c"]


async def test_places_are_taken_and_given_back(transport: Broker) -> None:
    limit = InFlight(2)
    assert await admitted(transport, limit, "a", "b", "c") == ["a", "b"]
    assert await admitted(transport, limit, "a") == ["a"], "who has a place keeps it"
    assert await waits(transport, limit, "c") == [ASK_AGAIN]
    await transport.leave([request("a", limit)])
    assert await admitted(transport, limit, "c", "d") == ["c"]


async def test_the_place_of_a_dead_process_is_free_after_a_lease(transport: Broker) -> None:
    limit = InFlight(1)
    assert await admitted(transport, limit, "died", lease=0.1) == ["died"]
    assert await admitted(transport, limit, "heir", lease=0.1) == []
    await asyncio.sleep(0.11)
    assert await admitted(transport, limit, "heir", lease=0.1) == ["heir"]


async def test_who_stays_keeps_his_place(transport: Broker) -> None:
    limit = InFlight(1)
    await admitted(transport, limit, "a", lease=0.1)
    for _ in range(5):
        await asyncio.sleep(0.05)
        await transport.stay([request("a", limit, lease=0.1)])
    assert await admitted(transport, limit, "b", lease=0.1) == []


async def test_several_requests_are_answered_in_order(transport: Broker) -> None:
    limit, members = InFlight(1), [("a", "x"), ("a", "y"), ("b", "y"), ("b", "x")]
    answers = await transport.admit([request(member, limit, key=key) for member, key in members], 10)
    assert [answer.admitted for answer in answers] == [True, True, False, False]
    assert [answer.refused and answer.refused.scope.key for answer in answers] == [None, None, "y", "x"]


async def test_no_more_start_than_the_process_lets(transport: Broker) -> None:
    limit = RateLimit(3, per=60.0)
    answers = await transport.admit([request(member, limit) for member in "abcd"], 2)
    assert [answer.admitted for answer in answers] == [True, True, False, False]
    assert answers[2] == answers[3] == Answer(False), "nothing but the process keeps them"
    assert await admitted(transport, limit, "c", "d") == ["c"], "and nothing was taken for them"


@pytest.mark.parametrize("count", [1, 7])
async def test_of_many_who_ask_at_once_so_many_start(transport: Broker, count: int) -> None:
    limit = RateLimit(count, per=60.0)
    answers = await asyncio.gather(*(admitted(transport, limit, f"m{i}") for i in range(30)))
    assert sum(map(len, answers)) == count


async def test_what_the_second_limit_refuses_has_not_spent_the_first(transport: Broker) -> None:
    by_organization, by_subject = RateLimit(10, per=60.0, by="organization"), RateLimit(1, per=60.0, by="subject")

    def of(member: str, subject: str) -> Request:
        bounds = [Bound(Scope("g", 0, "o"), by_organization), Bound(Scope("g", 1, subject), by_subject)]
        return Request(member, bounds, 10.0)

    noisy = await transport.admit([of(f"n{number}", "noisy") for number in range(20)], 1_000)
    assert [answer.admitted for answer in noisy] == [True] + [False] * 19
    assert {answer.refused.scope for answer in noisy if answer.refused} == {Scope("g", 1, "noisy")}
    others = await transport.admit([of(f"o{number}", f"s{number}") for number in range(10)], 1_000)
    assert [answer.admitted for answer in others] == [True] * 9 + [False]
    assert others[-1].refused == Bound(Scope("g", 0, "o"), by_organization)


async def test_what_the_whole_group_waits_for_has_spent_no_key(transport: Broker) -> None:
    by_key, place, whole = RateLimit(2, per=60.0, by="type"), InFlight(2, by="type"), InFlight(1)
    bounds = [Bound(Scope("g", 0, "t"), by_key), Bound(Scope("g", 1, "t"), place), Bound(Scope("g", 2, ""), whole)]
    a, b, c = (Request(member, bounds, 10.0) for member in "abc")
    first, second = await transport.admit([a, b], 10)
    assert (first.admitted, second.refused) == (True, bounds[2])
    await transport.leave([a])
    first, second = await transport.admit([b, c], 10)
    assert (first.admitted, second.refused) == (True, bounds[0]), "one start of the key is left, and not two"


async def test_a_line_forms_whatever_count_and_span(transport: Broker) -> None:
    spans = (0.01, 0.5, 1.0, 2.5, 60.0, 3600.0, 31_622_400.0)
    limits = [RateLimit(count, per, by="organization") for count in (1, 3, 4, 7, 8, 11, 30, 97) for per in spans]
    for limit in limits:
        scope = Scope("billing", 0, f"{limit.count}/{limit.per}")
        members = [f"m{number}" for number in range(limit.count + 3)]
        requests = [Request(member, [Bound(scope, limit)], 10.0) for member in members]
        told = [answer.wait for answer in await transport.admit(requests, 1_000)]
        assert told[: limit.count] == [0.0] * limit.count
        assert 0 < told[-3] <= told[-2] <= told[-1]
        assert limit.per < 0.5 or told[-3] < told[-1]
