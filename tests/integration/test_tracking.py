"""State, progress and counts of a tracked group, as its application sees them; and stopping a handler from outside."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from eventbus import Context, Event, EventBus, Group, Notice, Phase, RetryPolicy, State, Worker
from eventbus.event import uuid7
from eventbus.policy import Backoff
from eventbus.redis import records
from tests.waiting import eventually, until
from tests.working import working


class Baked(Event, type="bread.baked"):
    """`how`: ok, fail (the first time), reject, wait (until it is cancelled) or hold (whatever is done to it)."""

    how: str = "ok"


@pytest.fixture(params=["memory", "redis"])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[EventBus]:
    url = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    async with EventBus(url) as bus:
        yield bus


def bakery(**policy: Any) -> tuple[Group, list[str]]:
    group = Group(
        "bakery", **{"retry": RetryPolicy(2, Backoff.fixed(0.01)), "track": True, "keep_completed": 5, **policy}
    )
    seen: list[str] = []

    @group.on(Baked)
    async def bake(event: Baked, ctx: Context) -> None:
        seen.append(event.how)
        await ctx.progress(30)
        await ctx.progress({"step": "oven"})
        match event.how:
            case "fail" if ctx.attempt == 1:
                raise ValueError("too hot")
            case "die":
                raise ValueError("burnt")
            case "wait":
                await asyncio.sleep(60)
            case "hold":
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)
                raise OSError("not now")

    return group, seen


async def reaches(bus: EventBus, event_id: str, *phases: Phase) -> State:
    async def reached() -> State | None:  # by its record: for a moment there is but what can be seen from outside
        state = await bus.groups.state("bakery", event_id)
        return state if state.phase in phases and state.attempts and state.started else None

    found = await eventually(reached)
    assert found is not None
    return found


async def test_a_state_from_the_beginning_to_the_end(bus: EventBus) -> None:
    group, _ = bakery()
    later = await bus.publish(Baked(), delay=60)
    assert (await bus.groups.state(group, later.id)).phase == Phase.DELAYED
    good, bad, dead = [await bus.publish(Baked(how=how)) for how in ("ok", "fail", "die")]
    assert (await bus.groups.state(group, good.id)).phase == Phase.WAITING
    async with working(bus, group):
        done = await reaches(bus, good.id, Phase.COMPLETED)
        assert (done.type, done.attempts, done.progress, done.error) == ("bread.baked", 1, {"step": "oven"}, None)
        assert done.published is not None
        assert done.started is not None
        assert done.finished is not None
        assert done.published <= done.started <= done.finished
        again = await reaches(bus, bad.id, Phase.COMPLETED)
        assert (again.attempts, again.error) == (2, None)
        failed = await reaches(bus, dead.id, Phase.FAILED)
        assert (failed.attempts, failed.error) == (2, "ValueError: burnt")
    counts = await bus.groups.counts(group)
    assert (counts.waiting, counts.delayed, counts.active) == (0, 1, 0)
    assert (counts.completed, counts.failed) == (2, 1)
    assert (await bus.groups.state(group, uuid7())).phase == Phase.UNKNOWN
    with pytest.raises(ValueError, match="invalid literal"):
        await bus.groups.state(group, "no id")


async def test_what_happens_is_told_to_who_watches(bus: EventBus) -> None:
    group, _ = bakery()
    heard: list[Notice] = []

    async def watch() -> None:
        async for notice in bus.groups.watch(group):
            heard.append(notice)  # noqa: PERF401 - it never ends

    watching = asyncio.create_task(watch())

    async with working(bus, group):

        async def audible() -> bool:
            await bus.publish(Baked())
            await asyncio.sleep(0.15)
            return bool(heard)

        await eventually(audible)
        dying = await bus.publish(Baked(how="die"))
        await until(lambda: any(n.event_id == dying.id and n.occasion == "dead" for n in heard))
    told = [(notice.occasion, notice.attempts) for notice in heard if notice.event_id == dying.id]
    assert told[-1] == ("dead", 2)
    assert ("progress", 1) in told or ("progress", 2) in told
    assert heard[-1].error == "ValueError: burnt"
    watching.cancel()
    await asyncio.wait([watching])


async def test_an_untracked_group_writes_nothing_and_progress_goes_nowhere(redis_url: str) -> None:
    group, seen = bakery(track=False)
    async with EventBus(redis_url) as bus:
        receipt = await bus.publish(Baked())
        async with working(bus, group):
            await until(lambda: seen)
        assert await bus.transport.records.find("bakery", receipt.id) == {}
        assert (await bus.groups.counts(group)).completed == 0
        done = await bus.groups.state(group, receipt.id)
        assert (done.phase, done.started) == (Phase.COMPLETED, None), "what can be seen from outside"


@pytest.mark.parametrize("progress", [101, -1, float("inf"), "x" * 5_000])
async def test_progress_is_a_percentage_or_short_json(bus: EventBus, progress: Any) -> None:
    group = Group("bakery", retry=RetryPolicy(1), track=True)

    @group.on(Baked)
    async def bake(event: Baked, ctx: Context) -> None:
        await ctx.progress(progress)

    receipt = await bus.publish(Baked())
    async with working(bus, group):
        failed = await reaches(bus, receipt.id, Phase.FAILED)
    assert failed.error is not None
    assert "progress" in failed.error


async def test_what_is_not_kept_can_be_seen_for_a_moment(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "ENDED_TTL", 300)
    group, _ = bakery(keep_completed=0)
    async with EventBus(redis_url) as bus:
        async with working(bus, group):
            receipt = await bus.publish(Baked())
            await reaches(bus, receipt.id, Phase.COMPLETED)

        async def forgotten() -> bool:
            return not await bus.transport.records.find("bakery", receipt.id)

        await eventually(forgotten)
        assert (await bus.groups.counts(group)).completed == 1


# Aborting -------------------------------------------------------------------------------------------------------------


async def dead_error(bus: EventBus) -> str:
    async def there() -> str | None:
        letters = await bus.transport.dead_letters("bread")
        return letters[0].error if letters else None

    error = await eventually(there)
    assert error is not None
    return error


@pytest.mark.parametrize("how", ["wait", "hold"])
@pytest.mark.parametrize("named", [True, False])
async def test_a_running_handler_is_stopped_from_outside(bus: EventBus, how: str, named: bool) -> None:
    group, seen = bakery()
    async with working(bus, group):
        receipt = await bus.publish(Baked(how=how))
        await until(lambda: seen)
        await bus.events.abort(receipt.id, group if named else None, reason="it hangs")
        assert (await dead_error(bus)).startswith("Cancelled: by ")
        failed = await reaches(bus, receipt.id, Phase.FAILED)
        assert failed.error is not None
        assert failed.error.endswith(": it hangs")
        [letter] = await bus.transport.dead_letters("bread")
        assert letter.attempts == 1, "it was not tried again first"
        if named:  # it is over: a replay runs

            async def over() -> bool:
                return not await bus.transport.controls()

            await eventually(over)
            await asyncio.sleep(0.01)
            assert await bus.transport.replay(letter)
            await until(lambda: len(seen) == 2)
            await bus.events.abort(receipt.id)


async def test_what_has_not_begun_does_not_begin(bus: EventBus) -> None:
    group, seen = bakery()
    other = Group("cafe", retry=RetryPolicy(1))

    @other.on(Baked)
    async def serve(event: Baked, ctx: Context) -> None:
        seen.append("served")

    receipt = await bus.publish(Baked())
    await bus.events.abort(receipt.id, "bakery")
    async with working(bus, group, other):
        assert (await dead_error(bus)).startswith("Cancelled: by ")
        await until(lambda: seen)
    assert seen == ["served"], "the other group's business is its own"


async def test_a_worker_that_stops_still_gives_back_what_it_cancels(bus: EventBus) -> None:
    """Both cancel a task; only one of them is an end."""
    group, seen = bakery()
    worker = Worker(bus, [group], grace=0.1)
    running = asyncio.create_task(worker.run())
    receipt = await bus.publish(Baked(how="wait"))
    await until(lambda: seen)
    await worker.stop()
    await running
    assert await bus.transport.dead_letters("bread") == []
    assert (await bus.groups.state(group, receipt.id)).phase == Phase.WAITING
