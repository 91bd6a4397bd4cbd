"""What a relay makes of what it is told: whom it sets aside, whom it leaves alone, and when it must look first."""

from collections.abc import Sequence

from eventbus.contract.outgoing import Fate, Outgoing
from eventbus.errors import EventBusError, Full, Unavailable
from eventbus.event import Status
from eventbus.postgres.relay_decisions import FIRST_PAUSE, LONGEST_PAUSE, STALE, Judged, Relaying, Sent
from tests.samples import envelope

STORED = Status.STORED
AWAY = Unavailable("Redis", "no answer")
NOPERM = EventBusError("NOPERM this user has no permissions")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def relaying() -> tuple[Relaying, Clock]:
    clock = Clock()
    decisions = Relaying(clock)
    decisions.begin(0)
    return decisions, clock


def rows(*positions: int, place: str = "order") -> list[Sent]:
    return [Sent(position, place, Outgoing(envelope(position))) for position in positions]


def judge(decisions: Relaying, sent: Sequence[Sent], *fates: Fate) -> Judged:
    return decisions.judge(sent, fates)


def test_who_begins_must_look_for_all_that_another_may_have_tried() -> None:
    decisions, clock = relaying()
    decisions.begin(7)
    assert decisions.must_look(rows(7), clock.now)
    judge(decisions, rows(7), STORED)
    assert decisions.must_look(rows(3, 9), clock.now), "it may be one that committed late"
    assert not decisions.must_look(rows(8), clock.now), "nobody has ever sent it"


def test_a_lost_reply_is_doubt_about_all_up_to_its_rows_until_the_outbox_was_empty() -> None:
    decisions, clock = relaying()
    judged = judge(decisions, rows(2, 3, 4), STORED, AWAY, AWAY)
    assert (judged.published, judged.trouble) == ([2], AWAY)
    judge(decisions, rows(1, 3), STORED, STORED)  # 1 has committed late, and pushed 4 out of the batch
    assert decisions.must_look(rows(4), clock.now)
    assert not decisions.must_look(rows(5), clock.now)
    judge(decisions, rows(4), STORED)
    decisions.seen_empty()
    assert not decisions.must_look(rows(1), clock.now)


def test_an_outbox_is_not_empty_while_something_is_left_alone() -> None:
    decisions, clock = relaying()
    decisions.begin(1)
    judge(decisions, rows(1), NOPERM)
    decisions.seen_empty()
    assert decisions.must_look(rows(1), clock.now)


def test_who_has_slept_since_the_rows_were_read_must_look() -> None:
    decisions, clock = relaying()
    selected_at = clock.now
    clock.now += STALE / 2
    assert not decisions.must_look(rows(1), selected_at)
    clock.now += STALE
    assert decisions.must_look(rows(1), selected_at), "another relay may have been at work"


def test_a_place_that_refuses_is_left_alone_longer_each_time_and_tried_with_few() -> None:
    decisions, clock = relaying()
    sent, pauses = rows(*range(1, 100)), []
    judged = judge(decisions, sent, *[NOPERM] * 99)
    assert judged.refusing == {"order": (1, str(NOPERM), True)}
    assert (judged.published, judged.failed) == ([], {})
    for tries in range(1, 7):
        began = clock.now
        assert decisions.places_left_alone() == ["order"]
        while decisions.places_left_alone():
            clock.now += 0.5
        pauses.append(clock.now - began)
        chosen = decisions.chosen([*sent, *rows(100, place="invoice")])
        assert [row.position for row in chosen] == [*range(1, min(2**tries, 99) + 1), 100]
        judge(decisions, chosen, *[NOPERM] * (len(chosen) - 1), STORED)
    assert pauses == sorted(pauses)
    assert FIRST_PAUSE <= pauses[0] <= pauses[-1] <= LONGEST_PAUSE
    clock.now += LONGEST_PAUSE
    judged = judge(decisions, rows(1, 2), STORED, STORED)
    assert (judged.published, judged.healed) == ([1, 2], ["order"])
    assert len(decisions.chosen(sent)) == 99


def test_one_that_is_refused_though_later_ones_were_taken_is_tried_once_more_and_set_aside() -> None:
    decisions, _ = relaying()
    judged = judge(decisions, rows(1, 2, 3, 4), STORED, NOPERM, NOPERM, STORED)
    assert (judged.published, judged.failed, judged.refusing) == ([1, 4], {}, {})
    judged = judge(decisions, rows(2, 3), NOPERM, STORED)
    assert (judged.published, judged.failed, judged.refusing) == ([3], {2: str(NOPERM)}, {})


def test_a_place_that_refuses_from_some_point_on_refuses_all() -> None:
    decisions, _ = relaying()
    judged = judge(decisions, rows(1, 2, 3), STORED, NOPERM, NOPERM)
    assert (judged.published, judged.failed, judged.refusing) == ([1], {}, {"order": (2, str(NOPERM), True)})


def test_one_that_is_too_large_is_set_aside_at_once() -> None:
    decisions, _ = relaying()
    large = EventBusError("ERR Protocol error: invalid bulk length")
    judged = judge(decisions, rows(1, 2), large, AWAY)
    assert judged.failed == {1: str(large)}
    assert judged.trouble is AWAY


def test_a_full_server_is_nobodys_fault() -> None:
    decisions, clock = relaying()
    full = Full("no memory")
    judged = judge(decisions, rows(1, 2), STORED, full)
    assert (judged.published, judged.failed, judged.refusing, judged.trouble) == ([1], {}, {}, full)
    assert not decisions.must_look(rows(2), clock.now), "nothing was stored"


def test_rows_over_which_a_relay_has_stumbled_are_left_alone_for_a_moment() -> None:
    decisions, clock = relaying()
    decisions.leave_alone(5)
    assert decisions.rows_left_alone() == [5]
    clock.now += FIRST_PAUSE + 1
    assert decisions.rows_left_alone() == []
