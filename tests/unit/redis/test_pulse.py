"""What answers of a server tell of leases. The clocks are the test's."""

import pytest
from structlog.testing import capture_logs

from eventbus.redis.link import Link
from eventbus.redis.pulse import Pulse

LEASE = 9.0  # a third of it is what a living holder needs


class Clocks:
    """Ours and the server's, which may be set; and a pulse that looks each second while the server answers."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.server = 50_000.0
        self.pulse = Pulse(Link("redis://127.0.0.1:1", timeout=1, name="none"), "Redis", lambda: self.now)
        self.pulse._lease = LEASE  # without a task that looks

    def go_on(self, seconds: float) -> None:
        self.now += seconds
        self.server += seconds

    def look(self, there: float = 0.01, back: float = 0.01) -> None:
        asked = self.now
        self.go_on(there)
        server = self.server
        self.go_on(back)
        self.pulse.note(server, asked, self.now)

    def answer_for(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.look()
            self.go_on(min(1.0, max(0.0, until - self.now)))
        self.look()

    def age_needed(self) -> float | None:
        return self.pulse.age_needed(LEASE)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def test_who_has_just_begun_takes_nothing_over_before_all_who_live_have_had_the_time_to_renew(clocks: Clocks) -> None:
    assert clocks.age_needed() is None
    clocks.answer_for(2.5)
    assert clocks.age_needed() is None
    clocks.answer_for(1.0)
    assert clocks.age_needed() == LEASE


def test_a_lease_is_what_it_is_while_the_server_answers(clocks: Clocks) -> None:
    for _ in range(50):
        clocks.answer_for(LEASE / 2)
        assert clocks.age_needed() in {None, LEASE}
    assert clocks.age_needed() == LEASE


@pytest.mark.parametrize("silence", [4.0, 6.0, 7.0, 9.0, 12.0, 1000.0])
def test_what_was_silent_has_to_answer_again_for_long_enough(clocks: Clocks, silence: float) -> None:
    clocks.answer_for(20.0)
    renewed = clocks.now  # the last renewal before the silence
    clocks.go_on(silence)
    while True:
        clocks.look()
        age = clocks.age_needed()
        assert age is not None
        if clocks.now - renewed >= age:
            break
        clocks.go_on(0.1)
    answered = clocks.now - renewed - silence
    needed = max(LEASE / 3, LEASE - silence)
    assert answered >= needed - 0.2, "a living holder had the time to renew"
    assert answered <= needed + 0.2, "and a dead one is not waited for any longer"


def test_times_of_answers_add_up_however_short_they_are(clocks: Clocks) -> None:
    """A connection that never holds for long: what the dead had is taken over all the same."""
    clocks.go_on(0.0)
    dead_since = clocks.now
    while (age := clocks.age_needed()) is None or clocks.now - dead_since < age:
        clocks.answer_for(0.5)
        clocks.go_on(4.0)
        assert clocks.now - dead_since < 60
    assert clocks.now - dead_since > LEASE


def test_a_command_knows_when_it_is_meant_to_run(clocks: Clocks) -> None:
    assert clocks.pulse.server_ms() is None
    clocks.look()
    clocks.go_on(7.0)
    meant = clocks.pulse.server_ms()
    assert meant is not None
    assert clocks.server - 0.02 <= meant / 1000 <= clocks.server


def test_an_answer_that_took_long_says_little_about_the_time(clocks: Clocks) -> None:
    clocks.look()
    for there, back in ((4.5, 0.0), (0.0, 4.5)):
        with capture_logs() as logs:
            clocks.look(there, back)
        assert logs == [], "nobody has set a clock"
        meant = clocks.pulse.server_ms()
        assert meant is not None
        assert clocks.server - 0.02 <= meant / 1000 <= clocks.server


@pytest.mark.parametrize("step", [60.0, -600.0, 2.0, -2.0])
def test_a_clock_that_was_set_is_told_once_and_leases_run_anew(clocks: Clocks, step: float) -> None:
    clocks.answer_for(30.0)
    with capture_logs() as logs:
        clocks.server += step
        clocks.look()
        assert clocks.age_needed() is None
        clocks.answer_for(30.0)
    [line] = logs
    assert line["log_level"] == "warning"
    assert abs(line["seconds"] - step) < 0.1
    assert clocks.age_needed() == LEASE
    assert clocks.pulse.steps_back == (1 if step < 0 else 0)


def test_no_lease_is_over_before_a_whole_one_has_passed_since_the_clock_was_set(clocks: Clocks) -> None:
    """A worker that was stopped right after it had taken an event may go on within its lease."""
    clocks.answer_for(30.0)
    clocks.server += 35.0
    clocks.answer_for(LEASE - 0.5)
    assert clocks.age_needed() is None
    clocks.answer_for(1.0)
    assert clocks.age_needed() == LEASE


def test_a_clock_that_was_set_while_the_server_was_silent_is_seen_as_well(clocks: Clocks) -> None:
    clocks.answer_for(30.0)
    with capture_logs() as logs:
        clocks.go_on(100.0)
        clocks.server -= 600.0
        clocks.look()
    assert [line["seconds"] for line in logs] == [-600.0]


def test_clocks_that_drift_apart_are_no_news(clocks: Clocks) -> None:
    with capture_logs() as logs:
        for _ in range(10_000):
            clocks.answer_for(1.0)
            clocks.server += 0.0005
    assert logs == []
