"""Paging through a timeline to which events come late: each is seen, and none twice."""

import time
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from eventbus.event import uuid7
from handlers.lead.models import TimelineQuery
from handlers.lead.timeline_cursor import LATE, MOST_SEEN, TimelineCursor

NOW = 1_800_000_000.0


def event_id(made_at: float, number: int) -> UUID:
    return UUID(int=(int(made_at * 1000) << 80) | number)


def page_of(
    arrivals: dict[UUID, float], place: TimelineCursor, limit: int, now: float
) -> tuple[list[UUID], TimelineCursor | None]:
    """What is shown at this time, and the place behind it if there is more."""
    left = [each for each, at in arrivals.items() if at <= now and each > place.behind and each not in place.seen]
    shown = sorted(left)[:limit]
    return shown, place.after(shown, now) if len(left) > limit else None


# When each was made, in seconds before NOW, and how much later it arrived.
EVENTS = st.lists(
    st.tuples(st.integers(0, 3 * int(LATE)), st.integers(0, int(LATE) - 1)), min_size=10, max_size=MOST_SEEN
)


@given(events=EVENTS, limit=st.integers(1, 5), pause=st.integers(1, 10))
def test_what_arrives_late_is_seen_and_nothing_is_twice(events: list[tuple[int, int]], limit: int, pause: int) -> None:
    arrivals = {event_id(NOW - ago, number): NOW - ago + late for number, (ago, late) in enumerate(events)}
    place, now, seen = TimelineCursor(), NOW - LATE, list[UUID]()
    for _ in range(300):
        shown, following = page_of(arrivals, place, limit, now)
        assert shown == sorted(shown)
        if following is not None:
            seen += shown
            place = _returned(following)
        elif now > NOW + LATE:
            seen += shown
            break
        now += pause  # behind the last page, too: whoever wants to know what comes next asks for it again
    assert len(seen) == len(set(seen)), "twice"
    assert set(seen) == set(arrivals), "never"


def _returned(place: TimelineCursor) -> TimelineCursor:
    """By a client."""
    found = TimelineQuery.model_validate({"cursor": place.encode()}).cursor
    assert found == place
    return place


def test_what_was_there_all_the_time_is_seen_once_however_much_it_is() -> None:
    """More than a cursor can name, all of it made just now."""
    ids = [UUID(uuid7()) for _ in range(10 * MOST_SEEN)]
    arrivals, seen = dict.fromkeys(ids, 0.0), list[UUID]()
    following: TimelineCursor | None = TimelineCursor()
    while following is not None and len(seen) <= len(ids):
        assert len(following.encode()) < 2500, "it fits into a URL"
        shown, following = page_of(arrivals, _returned(following), 170, time.time())
        seen += shown
    assert seen == ids


def test_the_past_needs_no_names() -> None:
    old = [event_id(NOW, number) for number in range(50)]
    assert TimelineCursor().after(old, NOW + LATE + 1) == TimelineCursor(old[-1])


NAMED = TimelineCursor(event_id(1.0, 0), frozenset([event_id(2.0, 0)])).encode()
FAR = TimelineCursor(UUID(int=1 << 124)).encode()
LONG = TimelineCursor(UUID(int=0), frozenset(UUID(int=n) for n in range(1, MOST_SEEN + 2))).encode()


@pytest.mark.parametrize("cursor", ["", "a", NAMED[:-2], NAMED + "AAAA", "é", "\x00", "A" * 10_000, FAR, LONG, "Nw"])
def test_another_cursor_is_refused(cursor: str) -> None:
    assert TimelineQuery.model_validate({"cursor": NAMED}).cursor is not None
    with pytest.raises(ValidationError, match="not a cursor"):
        TimelineQuery.model_validate({"cursor": cursor})
