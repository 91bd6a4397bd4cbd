"""Every way in which a handler can end, and the outcome that it leads to."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import pytest
import structlog
from structlog.testing import capture_logs

from eventbus.bus import EventBus
from eventbus.consuming import executor as module
from eventbus.consuming.executor import Executor
from eventbus.context import Context
from eventbus.contract.codec import encode, envelop, pairs
from eventbus.contract.delivery import Ack, Dead, Delivery, Outcome, Release, Retry, Snooze, Subscription
from eventbus.errors import CodecError, Conflict, Reject, RetryLater, SnoozeFor, Unavailable
from eventbus.event import Envelope, Event, Origin
from eventbus.group import Group
from eventbus.handling.listeners import Finished
from eventbus.handling.middleware import CallNext, Middleware
from eventbus.handling.verdict import UNAVAILABLE_SNOOZE
from eventbus.policy import Backoff, RetryPolicy


class Baked(Event, type="executor.baked"):
    bread: str = "rye"


class Eaten(Event, type="executor.eaten"):
    pass


Handler = Callable[[Baked, Context], Awaitable[None]]
POLICY = RetryPolicy(attempts=3, backoff=Backoff.exponential(2.0))


def delivery_of(envelope: Envelope, *, failures: int = 0, crashes: int = 0) -> Delivery:
    fields = pairs([part if isinstance(part, bytes) else part.encode() for part in encode(envelope)])
    return Delivery(Subscription("executor", "eaters", "ann", 10.0, 3), "1-0", fields, failures, crashes)


BAKED = envelop(Baked())


async def execute(
    handler: Handler, envelope: Envelope = BAKED, *, failures: int = 0, crashes: int = 0, **options: Any
) -> Outcome:
    outcome, _ = await execute_heard(handler, envelope, failures=failures, crashes=crashes, **options)
    return outcome


async def execute_heard(
    handler: Handler, envelope: Envelope = BAKED, *, failures: int = 0, crashes: int = 0, **options: Any
) -> tuple[Outcome, list[Finished]]:
    """The outcome, and what a listener was told."""
    group = Group("eaters", **{"retry": POLICY, **options})
    group.on(Baked)(handler)
    told: list[Finished] = []
    executor = Executor(group, EventBus("memory://"), listeners=[told.append])
    return await executor.execute(delivery_of(envelope, failures=failures, crashes=crashes)), told


def raising(error: BaseException) -> Handler:
    async def handle(event: Baked, ctx: Context) -> None:
        raise error

    return handle


async def eat(event: Baked, ctx: Context) -> None:
    return


async def starve(event: Baked, ctx: Context) -> NoReturn:
    pytest.fail("this handler must not run")


# Running --------------------------------------------------------------------------------------------------------------


async def test_returning_is_success() -> None:
    assert await execute(eat) == Ack()


async def test_a_handler_is_given_its_event_and_where_it_comes_from() -> None:
    given: list[tuple[Baked, Context]] = []

    async def handle(event: Baked, ctx: Context) -> None:
        given.append((event, ctx))

    envelope = envelop(Baked(bread="wheat"), Origin("correlation", "cause", "org", "trace"), key="k")
    await execute(handle, envelope, failures=1)
    [(event, ctx)] = given
    assert event == Baked(bread="wheat")
    assert (ctx.event_id, ctx.attempt, ctx.group, ctx.organization_id) == (envelope.id, 2, "eaters", "org")
    assert (ctx.correlation_id, ctx.envelope) == ("correlation", envelope)
    assert ctx.origin == Origin("correlation", envelope.id, "org", "trace")


async def test_an_event_without_an_origin_is_its_own() -> None:
    async def handle(event: Baked, ctx: Context) -> None:
        assert ctx.correlation_id == ctx.event_id

    assert await execute(handle) == Ack()


# Failing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), ExceptionGroup("two", [ValueError(), KeyError()])])
async def test_raising_is_failure_and_is_tried_again(error: BaseException) -> None:
    outcome = await execute(raising(error))
    assert isinstance(outcome, Retry)
    assert outcome.delay == 2.0
    assert outcome.failure.error.startswith(type(error).__name__)
    assert "test_executor.py" in outcome.failure.traceback


async def test_what_is_no_exception_is_failure_too() -> None:
    class Strange(BaseException):
        pass

    for error in (Strange(), BaseExceptionGroup("group", [Strange()])):
        assert isinstance(await execute(raising(error)), Retry)


async def test_a_keyboard_interrupt_is_for_the_program() -> None:
    with pytest.raises(KeyboardInterrupt):
        await execute(raising(KeyboardInterrupt()))


async def test_each_attempt_waits_longer_and_the_last_one_is_buried() -> None:
    outcomes = [await execute(raising(ValueError("no")), failures=failures) for failures in range(3)]
    first, second, last = outcomes
    assert isinstance(first, Retry)
    assert isinstance(second, Retry)
    assert (first.delay, second.delay) == (2.0, 4.0)
    assert isinstance(last, Dead)
    assert (last.attempts, last.failure.error) == (3, "ValueError: no")
    assert "Traceback" in last.failure.traceback


async def test_a_handler_may_choose_when_to_be_tried_again() -> None:
    outcome = await execute(raising(RetryLater(7.5, "the office is closed")))
    assert isinstance(outcome, Retry)
    assert (outcome.delay, outcome.failure.error) == (7.5, "RetryLater: the office is closed")
    assert isinstance(await execute(raising(RetryLater(7.5)), failures=2), Dead), "it spends attempts all the same"


async def test_a_delay_that_cannot_be_is_the_handlers_failure() -> None:
    for delay in (-1.0, float("nan"), float("inf")):

        async def handle(event: Baked, ctx: Context, delay: float = delay) -> None:
            raise RetryLater(delay)

        outcome = await execute(handle)
        assert isinstance(outcome, Retry)
        assert outcome.delay == 2.0


async def test_a_rejected_event_is_buried_at_once() -> None:
    outcome = await execute(raising(Reject("nobody eats that")))
    assert isinstance(outcome, Dead)
    assert (outcome.attempts, outcome.failure.error) == (1, "Reject: nobody eats that")


async def test_a_server_that_is_away_spends_no_attempt() -> None:
    for failures in (0, 2):
        assert await execute(raising(Unavailable("PostgreSQL", "gone")), failures=failures) == Snooze(
            UNAVAILABLE_SNOOZE
        )


async def test_a_transaction_that_lost_to_another_is_run_again_within_its_attempt() -> None:
    contexts: list[Context] = []

    async def collide(event: Baked, ctx: Context) -> None:
        contexts.append(ctx)
        if len(contexts) < 4:
            raise Conflict("could not serialize access")

    assert await execute(collide) == Ack()
    assert [ctx.attempt for ctx in contexts] == [1, 1, 1, 1]
    assert len(set(map(id, contexts))) == 4, "each may open its transaction"


async def test_a_transaction_that_always_loses_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONFLICT_PAUSES", (0.0, 0.0))
    match await execute(raising(Conflict("could not serialize access"))):
        case Retry(delay, failure):
            assert (delay, failure.error) == (2.0, "Conflict: could not serialize access")
        case other:
            pytest.fail(str(other))


async def test_a_handler_that_takes_too_long_is_ended_and_has_failed() -> None:
    ended: list[bool] = []

    async def handle(event: Baked, ctx: Context) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    outcome = await execute(handle, timeout=0.02)
    assert isinstance(outcome, Retry)
    assert outcome.failure.error.startswith("TimeoutError")
    assert ended == [True]


async def test_a_handler_may_have_a_timeout_of_its_own() -> None:
    async def handle(event: Baked, ctx: Context) -> None:
        await asyncio.sleep(0.2)

    group = Group("eaters", timeout=0.01)
    group.on(Baked, timeout=None)(handle)
    assert await Executor(group, EventBus("memory://")).execute(delivery_of(BAKED)) == Ack()
    patient = Group("eaters", timeout=None)
    patient.on(Baked, timeout=0.01)(handle)
    assert isinstance(await Executor(patient, EventBus("memory://")).execute(delivery_of(BAKED)), Retry)


async def test_a_handler_may_have_a_retry_policy_of_its_own() -> None:
    group = Group("eaters", retry=POLICY)
    group.on(Baked, retry=RetryPolicy(attempts=1))(raising(ValueError("no")))
    assert isinstance(await Executor(group, EventBus("memory://")).execute(delivery_of(BAKED)), Dead)


async def test_a_snooze_spends_no_attempt_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with capture_logs() as lines:
        for failures in (0, 2):
            outcome, [finished] = await execute_heard(raising(SnoozeFor(7.5, "closed")), failures=failures)
            assert outcome == Snooze(7.5)
            assert isinstance(finished.error, SnoozeFor)
    assert {(line["event"], line["log_level"], line["reason"]) for line in lines} == {
        ("snoozed", "info", "SnoozeFor: closed")
    }
    assert all(0 <= line["age"] < 86_400 for line in lines), "how long its event has been on the way"


async def test_each_kind_of_error_has_its_outcome() -> None:
    policy = RetryPolicy(dead_letter_on=(LookupError,), backoff_on={OSError: Backoff.fixed(30.0)})
    assert isinstance(await execute(raising(KeyError()), retry=policy), Dead)
    outcome = await execute(raising(ExceptionGroup("tasks", [OSError("reset")])), retry=policy)
    assert isinstance(outcome, Retry)
    assert outcome.delay == 30.0


async def test_a_group_without_timeout_waits() -> None:
    async def handle(event: Baked, ctx: Context) -> None:
        await asyncio.sleep(0.05)

    assert await execute(handle, timeout=None) == Ack()


async def test_a_cancellation_that_a_handler_lets_pass_is_its_failure() -> None:
    async def handle(event: Baked, ctx: Context) -> None:
        inner = asyncio.create_task(asyncio.sleep(60))
        inner.cancel()
        await inner

    outcome = await execute(handle)
    assert isinstance(outcome, Retry)
    assert outcome.failure.error == "CancelledError"


async def test_a_handler_that_is_cancelled_by_its_worker_is_given_back() -> None:
    started = asyncio.Event()

    async def handle(event: Baked, ctx: Context) -> None:
        started.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(execute(handle))
    await started.wait()
    task.cancel()
    assert await task == Release()


async def test_a_handler_that_finishes_in_spite_of_its_cancellation_has_succeeded() -> None:
    started = asyncio.Event()

    async def handle(event: Baked, ctx: Context) -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return

    task = asyncio.create_task(execute(handle))
    await started.wait()
    task.cancel()
    assert await task == Ack()


# What no handler is asked about ---------------------------------------------------------------------------------------


async def test_what_is_no_envelope_is_buried() -> None:
    delivery = delivery_of(BAKED)
    delivery.fields = {b"id": b"\xff"}
    group = Group("eaters")
    group.on(Baked)(starve)
    outcome = await Executor(group, EventBus("memory://")).execute(delivery)
    assert isinstance(outcome, Dead)
    assert outcome.attempts == 0
    assert outcome.failure.error.startswith("CodecError: ")


@pytest.mark.parametrize(
    ("event_type", "data", "reason"),
    [
        ("executor.baked", b'{"bread": 5}', "CodecError: data does not fit executor.baked: bread"),
        ("executor.baked", b"\xff", "CodecError: data does not fit"),
        ("executor.nobody_knows", b"{}", "UnknownEventType: no event class for type 'executor.nobody_knows'"),
    ],
)
async def test_what_is_no_event_is_buried(event_type: str, data: bytes, reason: str) -> None:
    outcome = await execute(starve, BAKED._replace(type=event_type, data=data))
    assert isinstance(outcome, Dead)
    assert outcome.failure.error.startswith(reason)


async def test_an_event_for_other_groups_is_passed_by() -> None:
    assert await execute(starve, envelop(Eaten())) == Ack()


async def test_a_replay_is_for_one_group_only() -> None:
    assert await execute(starve, BAKED._replace(only="bakers")) == Ack()
    assert isinstance(await execute(raising(ValueError()), BAKED._replace(only="eaters")), Retry)


async def test_an_event_that_used_up_its_crash_budget_is_buried_unrun() -> None:
    outcome = await execute(starve, crashes=5, failures=1)
    assert isinstance(outcome, Dead)
    assert outcome.attempts == 1
    assert outcome.failure.error.startswith("CrashBudget: its worker died 5 times")
    assert await execute(eat, crashes=4) == Ack()


async def test_what_has_spent_its_attempts_is_not_run_again() -> None:
    """A worker that had lost its lease told of its failure late, while another one still tried."""
    outcome = await execute(starve, failures=3)
    assert isinstance(outcome, Dead)
    assert outcome.attempts == 3
    assert outcome.failure.error.startswith("AttemptsSpent: it has failed 3 times, and 3 attempts are granted")


# Middleware -----------------------------------------------------------------------------------------------------------


def through(*names: str, way: list[str]) -> list[Middleware]:
    def layer(name: str) -> Middleware:
        async def record(event: Event, ctx: Context, call_next: CallNext) -> None:
            way.append(f"{name} {ctx.attempt}")
            await call_next(event, ctx)

        return record

    return [layer(name) for name in names]


async def test_the_bus_middleware_is_outside_of_the_group_s() -> None:
    way: list[str] = []
    group = Group("eaters", middleware=through("inner", "innermost", way=way))
    group.on(Baked)(eat)
    executor = Executor(group, EventBus("memory://"), middleware=through("outermost", "outer", way=way))
    assert await executor.execute(delivery_of(BAKED, failures=1)) == Ack()
    assert way == ["outermost 2", "outer 2", "inner 2", "innermost 2"]


async def test_middleware_that_does_not_call_on_keeps_the_handler_from_running() -> None:
    async def swallow(event: Event, ctx: Context, call_next: CallNext) -> None:
        return

    assert await execute(starve, middleware=[swallow]) == Ack()


async def test_what_middleware_raises_is_the_handler_s_failure() -> None:
    async def refuse(event: Event, ctx: Context, call_next: CallNext) -> None:
        raise Reject("closed")

    async def fall(event: Event, ctx: Context, call_next: CallNext) -> None:
        await call_next(event, ctx)
        raise ValueError("afterwards")

    assert isinstance(await execute(starve, middleware=[refuse]), Dead)
    assert isinstance(await execute(eat, middleware=[fall]), Retry)


async def test_middleware_may_make_a_failure_another() -> None:
    async def translate(event: Event, ctx: Context, call_next: CallNext) -> None:
        try:
            await call_next(event, ctx)
        except ValueError as error:
            raise Reject("it will never work") from error

    assert isinstance(await execute(raising(ValueError()), middleware=[translate]), Dead)


async def test_the_timeout_covers_the_middleware() -> None:
    async def dawdle(event: Event, ctx: Context, call_next: CallNext) -> None:
        await call_next(event, ctx)
        await asyncio.sleep(60)

    outcome = await execute(eat, middleware=[dawdle], timeout=0.02)
    assert isinstance(outcome, Retry)
    assert outcome.failure.error.startswith("TimeoutError")


# Listeners ------------------------------------------------------------------------------------------------------------


async def test_listeners_are_told_of_an_execution_that_succeeded() -> None:
    async def nap(event: Baked, ctx: Context) -> None:
        await asyncio.sleep(0.02)

    outcome, [finished] = await execute_heard(nap)
    assert (finished.group, finished.envelope, finished.outcome, finished.error) == ("eaters", BAKED, Ack(), None)
    assert finished.outcome is outcome
    assert finished.delivery.entry_id == "1-0"
    assert 0.015 < finished.seconds < 10


@pytest.mark.parametrize("error", [ValueError("no"), Reject("no"), Unavailable("Redis", "gone"), SystemExit(1)])
async def test_listeners_are_told_of_an_execution_that_failed(error: BaseException) -> None:
    outcome, [finished] = await execute_heard(raising(error))
    assert finished.outcome is outcome
    assert finished.error is error


async def test_listeners_are_told_of_what_could_not_be_decoded() -> None:
    _, [finished] = await execute_heard(starve, BAKED._replace(data=b"\xff"))
    assert isinstance(finished.outcome, Dead)
    assert isinstance(finished.error, CodecError)
    assert finished.envelope is not None
    assert finished.seconds == 0.0

    told: list[Finished] = []
    delivery = delivery_of(BAKED)
    delivery.fields = {b"id": b"\xff"}
    group = Group("eaters")
    group.on(Baked)(starve)
    await Executor(group, EventBus("memory://"), listeners=[told.append]).execute(delivery)
    assert [(type(finished.outcome), finished.envelope) for finished in told] == [(Dead, None)]


async def test_listeners_are_told_of_a_crasher_that_is_condemned() -> None:
    outcome, [finished] = await execute_heard(starve, crashes=5)
    assert finished.outcome is outcome
    assert (finished.envelope, finished.error, finished.seconds) == (None, None, 0.0)


async def test_listeners_are_told_of_what_is_given_back() -> None:
    started = asyncio.Event()

    async def handle(event: Baked, ctx: Context) -> None:
        started.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(execute_heard(handle))
    await started.wait()
    task.cancel()
    _, [finished] = await task
    assert finished.outcome == Release()
    assert isinstance(finished.error, asyncio.CancelledError)


async def test_an_event_that_is_passed_by_is_no_execution() -> None:
    assert await execute_heard(starve, envelop(Eaten())) == (Ack(), [])
    assert await execute_heard(starve, BAKED._replace(only="bakers")) == (Ack(), [])


async def test_a_listener_changes_no_outcome_and_the_group_s_own_come_last() -> None:
    heard: list[str] = []
    group = Group("eaters", retry=POLICY)
    group.on(Baked)(raising(ValueError("no")))

    @group.on_failed
    async def cry(finished: Finished) -> None:
        heard.append("group")
        raise Reject("not from here")

    def shout(finished: Finished) -> None:
        heard.append("process")
        raise Reject("not from here")

    executor = Executor(group, EventBus("memory://"), listeners=[shout])
    assert isinstance(await executor.execute(delivery_of(BAKED)), Retry)
    await executor.drain(5)
    assert heard == ["process", "group"]


# What is told about it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:secret@host/0", "redis://:***@host/0"),
        ("cannot reach postgresql://me:se@cret@host:5432/db now", "cannot reach postgresql://me:***@host:5432/db now"),
        ("redis://host?password=secret&db=1", "redis://host?password=***&db=1"),
        ("see http://host:80/a@b", "see http://host:80/a@b"),
    ],
)
async def test_passwords_are_hidden(text: str, shown: str) -> None:
    with capture_logs() as lines:
        outcome = await execute(raising(ValueError(text)))
    assert isinstance(outcome, Retry)
    assert outcome.failure.error == f"ValueError: {shown}"
    assert shown in outcome.failure.traceback
    assert "cret" not in outcome.failure.traceback + str(lines)


async def test_an_error_is_one_line_of_bounded_length() -> None:
    outcome = await execute(raising(ValueError("first\nsecond" + "x" * 100_000)))
    assert isinstance(outcome, Retry)
    assert outcome.failure.error.startswith("ValueError: first second")
    assert len(outcome.failure.error) == 1000
    assert len(outcome.failure.traceback) == 16_000


async def test_an_error_that_cannot_say_what_it_is_is_still_a_failure() -> None:
    class Dumb(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    outcome = await execute(raising(Dumb()))
    assert isinstance(outcome, Retry)
    assert outcome.failure.error.startswith("Dumb: <exception str() failed>")


async def test_the_causes_of_an_error_are_in_its_traceback() -> None:
    async def handle(event: Baked, ctx: Context) -> None:
        try:
            int("inner")
        except ValueError as error:
            raise RuntimeError("outer") from error

    outcome = await execute(handle)
    assert isinstance(outcome, Retry)
    assert "ValueError: invalid literal" in outcome.failure.traceback


async def test_what_becomes_of_an_event_is_logged_with_all_that_tells_it_apart() -> None:
    with capture_logs() as lines:
        await execute(raising(Reject("no")), envelop(Baked(), Origin(correlation_id="c")))
    [line] = lines
    assert {line[key] for key in ("event", "log_level", "reason")} == {"dead letter", "error", "Reject: no"}
    assert (line["group"], line["attempt"], line["correlation_id"], line["event_type"]) == (
        "eaters",
        1,
        "c",
        "executor.baked",
    )


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


async def test_an_outcome_is_decided_before_anybody_is_told() -> None:
    """Whoever counts or hears of it raises, the log does, and so does the error that is to be told."""
    group = Group("g", retry=RetryPolicy(attempts=2, backoff=Backoff.fixed(3.0)))
    group.on(Baked)(raising(Speechless()))

    def count(*_: object) -> NoReturn:
        raise RuntimeError("cannot count")

    executor = Executor(group, EventBus("memory://"), counts=[count])
    before = structlog.get_config()
    structlog.configure(processors=[count], cache_logger_on_first_use=False)
    try:
        first = await executor.execute(delivery_of(BAKED))
        last = await executor.execute(delivery_of(BAKED, failures=1))
        undecoded = await executor.execute(Delivery(Subscription("plain", "g", "c", 30.0, 3), "1-1", {}))
    finally:
        structlog.configure(**before)
    assert isinstance(first, Retry)
    assert first.delay == 3.0
    assert isinstance(last, Dead)
    assert isinstance(undecoded, Dead)
