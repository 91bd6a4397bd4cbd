import math

import pytest

from eventbus.contract.circuits import Circuit
from eventbus.contract.limits import InFlight, RateLimit, SlowLane, key_of, limits_of
from eventbus.contract.retention import Retention
from eventbus.errors import ConfigurationError
from eventbus.event import Envelope, uuid7
from eventbus.group import Group

ENVELOPE = Envelope(uuid7(), "lead.created", b"{}", subject="lead-1", organization="org-1", metadata={"userId": "u-1"})


async def key_later(envelope: Envelope) -> str:
    return envelope.id


class KeyLater:
    """That it is async cannot be seen before it is called."""

    async def __call__(self, envelope: Envelope) -> str:
        return envelope.id


@pytest.mark.parametrize(
    ("by", "key"),
    [
        (None, ""),
        ("organization", "org-1"),
        ("subject", "lead-1"),
        ("type", "lead.created"),
        ("metadata.userId", "u-1"),
        ("metadata.nothing", None),
        (lambda envelope: envelope.id[:0] or "x", "x"),
    ],
)
def test_what_a_limit_counts_by(by: str | None, key: str | None) -> None:
    assert key_of(RateLimit(1, by=by), ENVELOPE) == key
    assert key_of(InFlight(1, by=by), ENVELOPE) == key


def test_limits_over_the_whole_group_are_asked_last() -> None:
    whole, each = RateLimit(10), RateLimit(1, by="organization")
    assert limits_of([whole, each], 3) == [each, whole, InFlight(3)]
    assert limits_of(None, None) == []


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: RateLimit(0), "count=0"),
        (lambda: RateLimit(1, per=0), "per=0"),
        (lambda: RateLimit(1, by="organisation"), "by='organisation' must be one of organization, subject, type"),
        (lambda: RateLimit(2.5), "count=2.5 must be a whole number"),  # type: ignore[arg-type]
        (lambda: RateLimit(True), "count=True must be a whole number"),
        (lambda: RateLimit(10**15), "count=1000000000000000 must be a whole number, 1 to 1,000,000,000"),
        (lambda: RateLimit("10"), "count='10' must be a whole number"),  # type: ignore[arg-type]
        (lambda: RateLimit(1, per=math.inf), "per=inf must be seconds"),
        (lambda: RateLimit(1, per=math.nan), "per=nan must be seconds"),
        (lambda: RateLimit(1, per=1e300), "per=1e[+]300 must be seconds, 0.01 to 31,622,400"),
        (lambda: RateLimit(1, per="1"), "per='1' must be seconds"),  # type: ignore[arg-type]
        (lambda: RateLimit(1, by="metadata."), "by='metadata.' must be one of"),
        (lambda: RateLimit(1, by=4711), "by=4711 must be one of"),  # type: ignore[arg-type]
        (lambda: RateLimit(1, by=key_later), "that is not async"),  # type: ignore[arg-type]
        (lambda: InFlight(0), "count=0"),
        (lambda: InFlight(1.5, by="type"), "count=1.5"),  # type: ignore[arg-type]
        (lambda: SlowLane(0.5), "places=0.5"),  # type: ignore[arg-type]
        (lambda: SlowLane(1, after=math.inf), "after=inf"),
        (lambda: Retention(settled=math.inf), "settled=inf must be seconds"),
        (lambda: Retention(settled=-1), "settled=-1 must be at least 0"),
        (lambda: Retention(settled_count=2.5, dead_count=-1), "settled_count=2.5 .*; dead_count=-1"),  # type: ignore[arg-type]
        (lambda: Circuit("n8n", failures=1.5, pause=math.nan), "failures=1.5 .*; pause=nan"),  # type: ignore[arg-type]
        (lambda: Group("emails", lease=math.inf, concurrency=2.5), "concurrency=2.5 .*; lease=inf"),  # type: ignore[arg-type]
        (lambda: Group("emails", keep_completed=2.5, crash_budget=1.5), "crash_budget=1.5 .*; keep_completed=2.5"),  # type: ignore[arg-type]
        (lambda: Group("emails", rate_limit=5), "5 is no limit"),  # type: ignore[arg-type]
        (lambda: Group("emails", max_in_flight=[5]), "5 is no limit"),  # type: ignore[list-item]
        (lambda: Group("emails", max_in_flight=0), "count=0"),
    ],
)
def test_limits_that_cannot_work_are_refused(make: object, fault: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigurationError, match=fault):
        make()


@pytest.mark.parametrize("key", [4711, b"org-1", ["org-1"], "\ud800"])
def test_a_key_that_is_none_is_refused_with_its_value(key: object) -> None:
    with pytest.raises((TypeError, ValueError), match=r"RateLimit: by=.* gave"):
        key_of(RateLimit(1, by=lambda _: key), ENVELOPE)  # type: ignore[arg-type, return-value]


def test_a_function_that_turns_out_to_be_async_gives_no_key() -> None:
    with pytest.raises(TypeError, match="a key is a str, or None"):
        key_of(RateLimit(1, by=KeyLater()), ENVELOPE)  # type: ignore[arg-type]
