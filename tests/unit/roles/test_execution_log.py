"""What is written of executions while PostgreSQL is away: later, once, and not without bound."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from eventbus.contract.delivery import Ack, Delivery, Outcome, Release, Snooze
from eventbus.contract.history import Ending, Execution
from eventbus.contract.tap import Passing
from eventbus.errors import Unavailable
from eventbus.event import uuid7
from eventbus.handling.listeners import Finished
from eventbus.handling.verdict import GivenBack
from eventbus.roles import execution_log
from eventbus.roles.execution_log import Executions
from tests.samples import consumer, envelope

AWAY = Unavailable("PostgreSQL", "no answer")


class Store:
    """An eventbus.contract.history.HistoryWriter that fails as it is told to; `reached` when it does so after it has
    written."""

    def __init__(self) -> None:
        self.trouble: Exception | None = None
        self.reached = False
        self.written: dict[str, Execution] = {}

    async def note(self, executions: Sequence[tuple[str, Execution]]) -> None:
        if self.trouble is None or self.reached:
            self.written |= dict(executions)
        if self.trouble is not None:
            raise self.trouble

    async def record(self, events: Sequence[Passing]) -> None: ...
    async def prepare(self) -> None: ...
    async def expire(self, keep: timedelta) -> None: ...


@pytest.fixture
def store() -> Store:
    return Store()


def tell(told: Executions, outcome: Outcome, error: BaseException | None = None, failures: int = 0) -> str:
    event = envelope()._replace(id=uuid7())
    told.ended(Finished("billing", Delivery(consumer(), "1-0", {}, failures), outcome, event, 0.5, error))
    return event.id


async def test_a_server_that_is_away_costs_nothing_of_what_was_heard(store: Store) -> None:
    told = Executions(store)
    store.trouble = AWAY
    first = tell(told, Ack())
    assert not await told.write()
    second = tell(told, Ack(), failures=2)
    assert not await told.write()
    store.trouble = None
    assert await told.write()
    assert [(each.event_id, each.attempt) for each in store.written.values()] == [(first, 1), (second, 3)]


async def test_what_was_written_without_an_answer_is_written_under_the_same_id(store: Store) -> None:
    told = Executions(store)
    store.trouble, store.reached = AWAY, True
    tell(told, Ack())
    assert not await told.write()
    store.trouble = None
    assert await told.write()
    assert len(store.written) == 1


async def test_what_waits_is_bounded_and_that_is_said_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution_log, "LIMIT", 10)
    told = Executions(store)
    store.trouble = AWAY
    with capture_logs() as logs:
        for _ in range(15):
            tell(told, Ack())
        store.trouble = None
        assert await told.write()
        tell(told, Ack())
        assert await told.write()
    assert len(store.written) == 11
    assert [line["event"] for line in logs] == [
        "executions are not recorded any more: too many wait for PostgreSQL",
        "executions are recorded again",
    ]
    assert logs[-1]["missing"] == 5


async def test_what_is_refused_is_left_out_and_the_next_is_written(store: Store) -> None:
    told = Executions(store)
    store.trouble = OSError("disk full")
    tell(told, Ack())
    assert await told.write()
    store.trouble = None
    tell(told, Ack())
    assert await told.write()
    assert len(store.written) == 1


async def test_that_a_server_is_away_is_no_news_of_each_event(store: Store) -> None:
    told = Executions(store)
    tell(told, Snooze(1.0), AWAY)
    tell(told, Snooze(1.0), ExceptionGroup("several", [AWAY]))
    assert await told.write()
    assert store.written == {}
    tell(told, Release(), GivenBack())
    tell(told, Snooze(5.0), ValueError("wait"))
    assert await told.write()
    assert [each.outcome for each in store.written.values()] == [Ending.RELEASED, Ending.SNOOZED]
    assert [each.error for each in store.written.values()] == ["GivenBack", "ValueError: wait"]


async def test_a_worker_that_ends_says_what_it_could_not_write(store: Store) -> None:
    told = Executions(store)
    store.trouble = AWAY
    tell(told, Ack())
    with capture_logs() as logs:
        await told.close()
    assert [(line["event"], line["count"]) for line in logs] == [("executions are not recorded", 1)]
