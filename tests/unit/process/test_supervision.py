"""What runs in the background is begun again when it ends, with a line of the log; or takes its owner along."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
from structlog.testing import capture_logs

from eventbus.errors import TaskFailed
from eventbus.process import supervision
from eventbus.process.ending import cancel_all
from eventbus.process.supervision import DEATHS, Background, deaths, supervise


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The pauses that are asked for, and none that is made."""
    pauses: list[float] = []
    turn = asyncio.sleep

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await turn(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with capture_logs():
        yield pauses


def ending(*ways: BaseException | None) -> Callable[[], Awaitable[None]]:
    """Each time another way; then it stays."""
    left = list(ways)

    async def run() -> None:
        if not left:
            await asyncio.Event().wait()
        error = left.pop(0)
        if error is not None:
            raise error

    return run


def failures(count: int) -> list[Exception]:
    return [ValueError("x") for _ in range(count)]


async def settled(turns: int = 50) -> None:
    wait = asyncio.get_running_loop().create_future()
    for _ in range(turns):
        asyncio.get_running_loop().call_soon(lambda: None)
        await asyncio.wait([wait], timeout=0)


async def test_it_begins_again_however_it_ends(at_once: list[float]) -> None:
    ways = [ValueError("x"), None, asyncio.CancelledError(), Unspeakable(), ExceptionGroup("g", [KeyError("y")])]
    before = deaths()
    with capture_logs() as lines:
        task = asyncio.create_task(supervise("settle:shop", ending(*ways)))
        await settled()
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
    assert deaths() - before == len(ways)
    assert [line["reason"] for line in lines] == [
        "ValueError('x')",
        "it returned",
        "CancelledError()",
        "Unspeakable",
        "ExceptionGroup('g', [KeyError('y')])",
    ]
    assert {line["task"] for line in lines} == {"settle:shop"}
    assert {line["log_level"] for line in lines} == {"error"}
    assert lines[0]["exc_info"] is ways[0]
    assert at_once == pytest.approx([0.1, 0.3, 0.9, 2.7, 8.1])


async def test_pauses_are_bounded_and_what_is_not_vital_is_tried_for_ever(at_once: list[float]) -> None:
    task = asyncio.create_task(supervise("survey", ending(*failures(40))))
    await settled(200)
    assert not task.done()
    assert len(at_once) == 40
    assert max(at_once) == supervision.LONGEST_PAUSE
    task.cancel()
    await asyncio.wait([task])


async def test_what_is_vital_takes_its_owner_along_with_a_reason() -> None:
    fault = ValueError("x")
    with pytest.raises(ValueError, match="x") as raised:
        await supervise("settle:shop", ending(*failures(DEATHS - 1), fault), vital=True)
    assert raised.value is fault
    assert fault.__notes__ == [
        f"settle:shop ended {DEATHS} times in a row, the last time by ValueError('x'): this process ends with it"
    ]
    with pytest.raises(TaskFailed, match=f"settle:shop ended {DEATHS} times in a row, the last time by it returned"):
        await supervise("settle:shop", ending(*[None] * DEATHS), vital=True)


async def test_who_has_run_for_long_is_forgiven(monkeypatch: pytest.MonkeyPatch, at_once: list[float]) -> None:
    monkeypatch.setattr(supervision, "STEADY", 0.0)
    task = asyncio.create_task(supervise("settle:shop", ending(*failures(2 * DEATHS)), vital=True))
    await settled(100)
    assert not task.done()
    assert set(at_once) == {supervision.FIRST_PAUSE}
    task.cancel()
    await asyncio.wait([task])


async def test_what_may_end_ends() -> None:
    await supervise("read:shop", ending(ValueError(), None), endless=False)


async def test_what_is_left_to_itself_is_held_and_what_it_raises_is_told() -> None:
    background = Background("shop")
    with capture_logs() as lines:
        task = background.start(ending(ValueError("x"))(), "once")  # type: ignore[arg-type]
        background.start(ending()(), "cancelled")  # type: ignore[arg-type]
        await asyncio.wait([task])
        await cancel_all(background.tasks)
        await settled(5)
    assert background.tasks == ()
    [line] = lines
    assert (line["owner"], line["task"], line["exc_info"]) == ("shop", "once", task.exception())
