"""Who is told of an execution, when, and what a listener cannot do."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from eventbus.contract.codec import encode, envelop, pairs
from eventbus.contract.delivery import Ack, Dead, Delivery, Failure, Outcome, Release, Retry, Snooze
from eventbus.errors import CodecError
from eventbus.event import Event
from eventbus.handling import listeners
from eventbus.handling.listeners import Announcer, Finished
from tests.samples import consumer
from tests.waiting import PATIENCE


class Struck(Event, type="clock.struck"):
    pass


FAILURE = Failure("ValueError: no")
ERROR = ValueError("no")


def finished(outcome: Outcome = Ack(), error: BaseException | None = None) -> Finished:  # noqa: B008 - it is frozen
    envelope = envelop(Struck())
    fields = pairs([part if isinstance(part, bytes) else part.encode() for part in encode(envelope)])
    return Finished("ears", Delivery(consumer("ann"), "1-0", fields), outcome, envelope, 0.1, error)


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with capture_logs() as lines:
        yield lines


# Occasions ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "error", "occasions"),
    [
        (Ack(), None, {"completed"}),
        (Retry(1.0, FAILURE), ERROR, {"failed", "errored"}),
        (Snooze(1.0), ERROR, {"errored"}),
        (Dead(FAILURE, 3), ERROR, {"dead", "errored"}),
        (Dead(FAILURE, 0), CodecError("no envelope"), {"dead", "errored"}),
        (Dead(FAILURE, 0), None, {"dead"}),
        (Release(), asyncio.CancelledError(), set()),
    ],
)
def test_each_outcome_has_its_occasions(outcome: Outcome, error: BaseException | None, occasions: set[str]) -> None:
    ended = finished(outcome, error)
    names = ("completed", "failed", "dead", "errored")
    assert {name for name in names if getattr(listeners, name)(ended)} == occasions


def test_a_listener_of_an_occasion_keeps_its_name_and_hears_nothing_else() -> None:
    heard: list[Finished] = []

    def mourn(finished: Finished) -> None:
        heard.append(finished)

    listener = listeners.only(listeners.dead, mourn)
    assert getattr(listener, "__qualname__", "").endswith("mourn")
    dead = finished(Dead(FAILURE, 1))
    listener(finished())
    listener(dead)
    assert heard == [dead]


# Telling --------------------------------------------------------------------------------------------------------------


async def test_listeners_are_told_in_order_before_it_returns_asynchronous_ones_soon_after() -> None:
    heard: list[str] = []

    def first(finished: Finished) -> None:
        heard.append("first")

    async def second(finished: Finished) -> None:
        heard.append("second")

    def third(finished: Finished) -> None:
        heard.append("third")

    announcer = Announcer("ears", [first, second, third])
    announcer.tell(finished())
    assert heard == ["first", "third"]
    await announcer.drain(5)
    assert heard == ["first", "third", "second"]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), asyncio.CancelledError()])
async def test_a_listener_that_raises_is_logged_and_the_next_is_told(error: BaseException, lines: list[Any]) -> None:
    heard: list[Finished] = []

    def fall(finished: Finished) -> None:
        raise error

    async def fall_later(finished: Finished) -> None:
        raise error

    announcer = Announcer("ears", [fall, fall_later, heard.append])
    announcer.tell(finished())
    await announcer.drain(5)
    assert len(heard) == 1
    assert [(line["event"], line["group"], line["listener"].split(".")[-1]) for line in lines] == [
        ("a listener failed", "ears", "fall"),
        ("a listener failed", "ears", "fall_later"),
    ]
    assert all(line["exc_info"] is error for line in lines)


async def test_a_listener_that_always_fails_is_no_flood(lines: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fall(finished: Finished) -> None:
        raise ERROR

    announcer = Announcer("ears", [fall])
    for _ in range(3):
        announcer.tell(finished())
    assert [line["log_level"] for line in lines] == ["error", "debug", "debug"]
    monkeypatch.setattr(listeners, "_COMPLAINT_INTERVAL", 0.0)
    announcer.tell(finished())
    assert lines[-1]["log_level"] == "error"


async def test_a_listener_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch, lines: list[Any]) -> None:
    monkeypatch.setattr(listeners, "LISTENER_TIMEOUT", 0.01)
    announcer = Announcer("ears", [sleepy([])])
    announcer.tell(finished())
    await announcer.drain(20)
    [line] = lines
    assert (line["event"], line["error"]) == ("a listener failed", "TimeoutError()")


def sleepy(ended: list[str]) -> Callable[[Finished], Any]:
    async def sleep(finished: Finished) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("cancelled")

    return sleep


async def test_the_drain_cuts_short_what_takes_longer(lines: list[Any]) -> None:
    ended: list[str] = []
    announcer = Announcer("ears", [sleepy(ended)])
    announcer.tell(finished())
    await announcer.drain(0.01)
    assert ended == ["cancelled"]
    assert [(line["event"], line["count"]) for line in lines] == [
        ("listeners are cancelled: the time to stop is over", 1)
    ]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_listener_that_has_not_begun_leaves_no_coroutine_behind() -> None:
    announcer = Announcer("ears", [sleepy([])])
    announcer.tell(finished())
    await announcer.drain(0)
    gc.collect()  # "never awaited" would be told here, and be an error


async def test_a_drain_does_not_wait_for_a_listener_that_will_not_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "_CANCEL_GRACE", 0.01)
    go = asyncio.Event()

    async def stay(finished: Finished) -> None:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    announcer = Announcer("ears", [stay])
    announcer.tell(finished())
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        await announcer.drain(0)
    go.set()


async def test_slow_listeners_do_not_pile_up_without_end(monkeypatch: pytest.MonkeyPatch, lines: list[Any]) -> None:
    monkeypatch.setattr(listeners, "LISTENERS_LIMIT", 4)
    go = asyncio.Event()
    heard: list[Finished] = []

    async def slow(finished: Finished) -> None:
        await go.wait()
        heard.append(finished)

    announcer = Announcer("ears", [slow])
    for _ in range(10):
        announcer.tell(finished())
    go.set()
    await announcer.drain(5)
    assert len(heard) == 4
    assert [line["event"] for line in lines] == ["listeners are too slow: not told"]
    announcer.tell(finished())
    await announcer.drain(5)
    assert len(heard) == 5
    gc.collect()
