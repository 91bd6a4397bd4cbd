import pytest

from eventbus.errors import ConfigurationError
from eventbus.event import Envelope, uuid7
from eventbus.group import Group
from eventbus.limits import InFlight, RateLimit, key_of, limits_of

ENVELOPE = Envelope(uuid7(), "lead.created", b"{}", subject="lead-1", organization="org-1", metadata={"userId": "u-1"})


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
        (lambda: InFlight(0), "count=0"),
        (lambda: Group("emails", max_in_flight=0), "count=0"),
    ],
)
def test_limits_that_cannot_work_are_refused(make: object, fault: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigurationError, match=fault):
        make()
