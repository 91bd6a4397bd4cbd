"""Which log an event goes to, and what of that changes when a stream grows."""

from collections import Counter

import pytest

from eventbus.contract.dedupe import Once
from eventbus.contract.partitions import MOST, division_faults, log_name, log_of, logs_of
from eventbus.event import Envelope, stream_of, uuid7

KEYS = [f"lead-{number}" for number in range(20_000)]


def event(key: str | None = None) -> Envelope:
    return Envelope(uuid7(), "lead.created", b"{}", subject=key)


def test_the_first_log_has_the_name_of_its_stream() -> None:
    assert logs_of("lead", 3) == ("lead", "lead.1", "lead.2")
    assert {stream_of(log) for log in logs_of("lead", 3)} == {"lead"}


@pytest.mark.parametrize("count", [1, 2, 3, 16, MOST])
def test_a_key_has_its_log_and_all_logs_have_about_as_many(count: int) -> None:
    placed = Counter(log_of(event(key), None, count) for key in KEYS)
    assert placed.keys() <= set(logs_of("lead", count))
    if count <= 16:
        fair = len(KEYS) / count
        assert all(0.85 * fair < some < 1.15 * fair for some in placed.values())
        assert len(placed) == count


def test_the_log_of_a_key_is_the_same_in_every_process_and_version() -> None:
    assert [log_of(event(key), None, 16) for key in ("a", "lead-1", "ü", "\ud800")] == LOGS


LOGS = ["lead.11", "lead.8", "lead.2", "lead.11"]


@pytest.mark.parametrize(("before", "now"), [(1, 2), (2, 3), (4, 16), (16, 17)])
def test_growth_moves_keys_to_new_logs_and_no_more_than_it_must(before: int, now: int) -> None:
    old = [log_of(event(key), None, before) for key in KEYS]
    new = [log_of(event(key), None, now) for key in KEYS]
    moved = [there for here, there in zip(old, new, strict=True) if here != there]
    assert set(moved) <= {log_name("lead", number) for number in range(before, now)}
    assert len(moved) / len(KEYS) == pytest.approx(1 - before / now, abs=0.03)


def test_events_without_a_key_are_spread_and_stay_where_they_are() -> None:
    events = [event() for _ in range(4_000)]
    placed = Counter(log_of(each, None, 4) for each in events)
    assert all(850 < some < 1_150 for some in placed.values())
    assert Counter(log_of(each, None, 4) for each in events) == placed


def test_events_without_a_key_meet_by_their_dedupe_key() -> None:
    assert len({log_of(event(), Once("order-7"), 64) for _ in range(20)}) == 1
    assert log_of(event("a"), Once("order-7"), 16) == LOGS[0], "order by key comes first"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"lead": 0}, "partitions['lead']=0 must be at least 1"),
        ({"lead": 2_000}, "partitions['lead']=2000 must be a whole number, 1 to 1,024"),
        ({"lead": True}, "partitions['lead']=True must be"),
        ({"lead": "4"}, "partitions['lead']='4' must be"),
        ({"lead.created": 4}, "'lead.created' is no stream; that of an event is the first part of its type"),
        ({"": 4}, "'' is no stream"),
        ({4: 4}, "4 is no stream"),
        ("lead=4", "partitions='lead=4' must be a dict"),
    ],
)
def test_what_is_no_division_is_told(wrong: object, said: str) -> None:
    assert said in "; ".join(division_faults(wrong))


def test_a_division_has_no_faults() -> None:
    assert division_faults({"lead": 16, "task": 1, "x_y": MOST}) == []
