"""Limits across processes, as the transports keep them."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from eventbus.limits import InFlight, Limit, RateLimit
from eventbus.transport import ASK_AGAIN, Request, Scope, Transport


def request(limit: Limit, members: Sequence[str], *, key: str = "", lease: float = 10.0) -> Request:
    return Request(Scope("billing", 0, key), limit, lease, members)


async def admitted(transport: Transport, limit: Limit, *members: str, key: str = "", lease: float = 10.0) -> list[str]:
    [waits] = await transport.admit([request(limit, members, key=key, lease=lease)])
    return [member for member, wait in zip(members, waits, strict=True) if wait == 0]


async def test_a_rate_holds_in_every_span(transport: Transport) -> None:
    limit = RateLimit(5, per=0.2)
    starts: list[float] = []
    until = time.monotonic() + 1.1
    while time.monotonic() < until:
        asked = time.monotonic()
        granted = len(await admitted(transport, limit, "a", "b", "c"))
        starts += [asked] * granted
        await asyncio.sleep(0.003)
    assert 22 <= len(starts) <= 30
    # What was granted was counted after it was asked for: two spans that overlap by that much are not told apart.
    for i in range(len(starts) - 5):
        assert starts[i + 5] - starts[i] > 0.18


async def test_who_is_refused_is_told_when_to_come(transport: Transport) -> None:
    limit = RateLimit(2, per=0.5)
    [waits] = await transport.admit([request(limit, ["a", "b", "c"])])
    assert waits[:2] == [0.0, 0.0]
    assert 0.3 < waits[2] <= 0.54
    await asyncio.sleep(waits[2] + 0.01)
    assert await admitted(transport, limit, "c") == ["c"]


async def test_keys_have_limits_of_their_own(transport: Transport) -> None:
    limit = RateLimit(1, per=60.0, by="organization")
    assert await admitted(transport, limit, "a", key="org-1") == ["a"]
    assert await admitted(transport, limit, "b", key="org-1") == []
    assert await admitted(transport, limit, "b", key="org-2") == ["b"]


async def test_who_stands_in_line_is_not_overtaken(transport: Transport) -> None:
    limit = RateLimit(1, per=0.1, by="organization")
    [waits] = await transport.admit([request(limit, ["a", "b", "c"], key="o")])
    assert waits[0] == 0.0
    assert 0.0 < waits[1] < waits[2], "each has a time of its own"
    await asyncio.sleep(waits[1] + 0.01)  # loops count in milliseconds, and round
    assert await admitted(transport, limit, "newcomer", key="o") == []
    assert await admitted(transport, limit, "b", key="o") == ["b"]
    await asyncio.sleep(waits[2] - waits[1] + 0.01)
    assert await admitted(transport, limit, "c", key="o") == ["c"]


async def test_places_are_taken_and_given_back(transport: Transport) -> None:
    limit = InFlight(2)
    assert await admitted(transport, limit, "a", "b", "c") == ["a", "b"]
    assert await admitted(transport, limit, "a") == ["a"], "who has a place keeps it"
    [[wait]] = await transport.admit([request(limit, ["c"])])
    assert wait == ASK_AGAIN
    await transport.leave([request(limit, ["a"])])
    assert await admitted(transport, limit, "c", "d") == ["c"]


async def test_the_place_of_a_dead_process_is_free_after_a_lease(transport: Transport) -> None:
    limit = InFlight(1)
    assert await admitted(transport, limit, "died", lease=0.1) == ["died"]
    assert await admitted(transport, limit, "heir", lease=0.1) == []
    await asyncio.sleep(0.11)
    assert await admitted(transport, limit, "heir", lease=0.1) == ["heir"]


async def test_who_stays_keeps_his_place(transport: Transport) -> None:
    limit = InFlight(1)
    await admitted(transport, limit, "a", lease=0.1)
    for _ in range(5):
        await asyncio.sleep(0.05)
        await transport.stay([request(limit, ["a"], lease=0.1)])
    assert await admitted(transport, limit, "b", lease=0.1) == []


async def test_several_requests_are_answered_in_order(transport: Transport) -> None:
    limit = InFlight(1)
    answers = await transport.admit([request(limit, ["a"], key="x"), request(limit, ["a", "b"], key="y")])
    assert answers == [[0.0], [0.0, ASK_AGAIN]]


@pytest.mark.parametrize("count", [1, 7])
async def test_of_many_who_ask_at_once_so_many_start(transport: Transport, count: int) -> None:
    limit = RateLimit(count, per=60.0)
    answers = await asyncio.gather(*(admitted(transport, limit, f"m{i}") for i in range(30)))
    assert sum(map(len, answers)) == count


async def test_a_line_forms_whatever_count_and_span(transport: Transport) -> None:
    spans = (0.01, 0.5, 1.0, 2.5, 60.0, 3600.0, 31_622_400.0)
    limits = [RateLimit(count, per, by="organization") for count in (1, 3, 4, 7, 8, 11, 30, 97) for per in spans]
    for limit in limits:
        scope = Scope("billing", 0, f"{limit.count}/{limit.per}")
        members = [f"m{number}" for number in range(limit.count + 3)]
        [waits] = await transport.admit([Request(scope, limit, 10.0, members)])
        assert waits[: limit.count] == [0.0] * limit.count
        assert 0 < waits[-3] < waits[-2] < waits[-1]
