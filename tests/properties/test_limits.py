"""What must hold of limits whatever their numbers, and whoever asks when: on the rule that memory has, and on the
script of Redis on each server. Time is the test's."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventbus.contract.limiting import Bound, Request, Scope
from eventbus.contract.limits import InFlight, Limit, RateLimit
from tests.properties.crowd import BEGIN, Crowd, check_places, check_rates
from tests.properties.limits_grid import COUNTS, SPANS, rate
from tests.properties.turnstiles import Asked, OnServer, Rule

LEASE = 10 * 365 * 86_400.0  # no place is lost for want of a renewal
WHENEVER = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

spans = st.sampled_from([0.01, 0.5, 1.0, 2.5, 60.0, 3_600.0]) | st.floats(0.01, 100.0)
counts = st.integers(1, 12)
keyed = st.one_of(
    st.builds(RateLimit, counts, spans, st.sampled_from(["organization", "subject"])),
    st.builds(InFlight, counts, st.sampled_from(["organization", "subject"])),
)
whole = st.one_of(st.builds(RateLimit, counts, spans), st.builds(InFlight, counts))
limits = st.builds(lambda some, few: [*some, *few], st.lists(keyed, max_size=3), st.lists(whole, max_size=2)).filter(
    bool
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.lists(st.tuples(st.sampled_from("xy"), st.sampled_from("ab")), max_size=12)),
        st.tuples(st.just("pass"), st.floats(0.0, 3.0)),
        st.tuples(st.just("leave"), st.integers(1, 4)),
    ),
    max_size=12,
)


class Arriving:
    """Requests of events that come one after the other, under the limits of one group."""

    def __init__(self, group: str, group_limits: Sequence[Limit]) -> None:
        self._group = group
        self._limits = group_limits
        self.number = 0

    def of(self, organization: str, subject: str) -> Request:
        self.number += 1
        keys = {"organization": organization, "subject": f"{organization}{subject}", None: ""}
        bounds = [
            Bound(Scope(self._group, number, keys[limit.by]), limit)  # type: ignore[index]
            for number, limit in enumerate(self._limits)
        ]
        return Request(f"s/{self.number}-0", bounds, LEASE)


groups = iter(range(10**9))


async def live(crowd: Crowd, arriving: Arriving, day: Sequence[tuple[str, Any]], span: float) -> None:
    """What a step passes is so much of a span."""
    for what, how in day:
        if what == "ask":
            await crowd.ask([arriving.of(*keys) for keys in how])
        elif what == "pass":
            await crowd.until(crowd.now + round(how * span * 1000))
        else:
            await crowd.leave(crowd.running[:how])
        check_places(crowd.running)


@WHENEVER
@given(group_limits=limits, day=steps)
async def test_limits_hold_and_everybody_starts(asked: Asked, group_limits: list[Limit], day: list[Any]) -> None:
    crowd, arriving = Crowd(asked), Arriving(f"g{next(groups)}", group_limits)
    await live(crowd, arriving, day, 1.0)
    for _ in range(50 * arriving.number):  # nobody waits for ever
        if crowd.next is not None:
            await crowd.leave(list(crowd.running))
            await crowd.until(crowd.next)
            check_places(crowd.running)
    assert len(crowd.starts) == arriving.number
    check_rates(crowd.starts)


@WHENEVER
@given(group_limits=limits, day=steps)
async def test_the_script_does_as_the_rule_says(script: OnServer, group_limits: list[Limit], day: list[Any]) -> None:
    """Answer by answer, to the millisecond."""
    name = f"g{next(groups)}"
    crowds = [(Crowd(each), Arriving(name, group_limits)) for each in (script, Rule())]
    for crowd, arriving in crowds:
        await live(crowd, arriving, day, 1.0)
        await crowd.until(crowd.now + 2_000)
    on_the_server, by_the_rule = ([(at, each.member) for at, each in crowd.starts] for crowd, _ in crowds)
    assert on_the_server == by_the_rule
    assert crowds[0][0].next == crowds[1][0].next


@WHENEVER
@given(count=st.integers(1, 12), per=spans, arrivals=st.lists(st.tuples(st.integers(0, 9), st.floats(0, 1.5))))
async def test_nobody_overtakes_within_a_key(
    asked: Asked, count: int, per: float, arrivals: list[tuple[int, float]]
) -> None:
    arriving, crowd = Arriving(f"g{next(groups)}", [RateLimit(count, per, "organization")]), Crowd(asked)
    for many, pause in arrivals:
        await crowd.ask([arriving.of("x", "a") for _ in range(many)])
        await crowd.until(crowd.now + round(pause * per * 1000))
    await crowd.until(crowd.now + round((arriving.number / count + 2) * per * 1100) + 1_000)
    assert [request.member for _, request in crowd.starts] == [f"s/{n}-0" for n in range(1, arriving.number + 1)]


@pytest.mark.parametrize("per", SPANS)
async def test_a_key_gets_its_rate_and_no_more(asked: Asked, per: float) -> None:
    """A sample; `python -m tests.properties.limits_grid` goes through all of it."""
    for count in (1, 4, COUNTS[int(per * 7) % 100]):
        assert 0.95 <= await rate(asked, count, per) <= 1.0


def of(group: str, member: int, *limited: tuple[Limit, str]) -> Request:
    """A delivery and its keys, one for each limit of its group."""
    return Request(
        f"s/{member}-0", [Bound(Scope(group, n, key), limit) for n, (limit, key) in enumerate(limited)], LEASE
    )


async def test_who_waits_in_a_second_line_keeps_its_place_in_the_first(asked: Asked) -> None:
    """Its organization has a line of 100 s and its subject one of 40 s, both without end. It waits once in each."""
    group, crowd, numbers = f"g{next(groups)}", Crowd(asked), iter(range(10**6))
    by_organization, by_subject = RateLimit(1, per=0.5, by="organization"), RateLimit(1, per=5.0, by="subject")

    def one(organization: str = "", subject: str = "") -> Request:
        number = next(numbers)
        keys = organization or f"o{number}", subject or f"s{number}"
        return of(group, number, (by_organization, keys[0]), (by_subject, keys[1]))

    await crowd.ask([one(organization="busy") for _ in range(200)])
    await crowd.ask([one(subject="busy") for _ in range(8)])
    both = one(organization="busy", subject="busy")
    await crowd.ask([both])
    for _ in range(30):
        await crowd.ask([one(subject="busy")])
        for _ in range(10):
            await crowd.ask([one(organization="busy")])
            await crowd.until(crowd.now + 500)
    assert both in [request for _, request in crowd.starts], "150 s are enough for both lines"


async def test_it_stands_in_the_line_that_keeps_it_for_longest(asked: Asked) -> None:
    group = f"g{next(groups)}"
    by_organization, by_subject = RateLimit(1, per=10.0, by="organization"), RateLimit(1, per=1.0, by="subject")
    first, both, other = (
        of(group, member, (by_organization, organization), (by_subject, "s"))
        for member, organization in enumerate(["o", "o", "p"])
    )
    started, refused = await asked.admit([first, both], 10, BEGIN)
    assert started.admitted
    assert refused.refused == both.bounds[0]
    assert 10.0 <= refused.wait < 10.5
    assert [answer.admitted for answer in await asked.admit([other], 10, BEGIN + 1_100)] == [True], (
        "nobody is before it"
    )
