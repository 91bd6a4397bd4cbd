"""Names that programs have used go on working, and say what they are called now."""

import inspect
from datetime import timedelta

import pytest

from eventbus import EventBus, Group
from eventbus.operating.former_names import FormerNames
from eventbus.process.resources import Resource

FORMER = [name for name in vars(FormerNames) if not name.startswith("_")]


@pytest.mark.parametrize("name", FORMER)
def test_each_says_what_it_is_called_now_and_is_of_the_same_kind(name: str) -> None:
    former = getattr(EventBus, name)
    bus = EventBus("memory://")
    said = (former.__doc__ or "").split("`")[1]
    _, part, now = said.split(".")
    current = getattr(getattr(bus, part), now)
    assert inspect.iscoroutinefunction(former) == inspect.iscoroutinefunction(current)
    assert list(inspect.signature(getattr(bus, name)).parameters) == list(inspect.signature(current).parameters)


async def test_they_do_what_the_new_ones_do() -> None:
    class Kettle:
        pass

    bus, resource = EventBus("memory://"), Resource[Kettle]("kettle", lambda use: pytest.fail("it was provided"))
    bus.provide(resource, kettle := Kettle())
    assert await bus.use(resource) is kettle
    assert await bus.pause("cooks", "the stove is cold")
    assert (await bus.groups.paused())["cooks"].reason == "the stove is cold"
    assert await bus.resume("cooks")
    await bus.remember("dishes", {b"soup": 1}, keep=1, seconds=60)
    assert await bus.shared.recall("dishes") == await bus.recall("dishes") == [b"soup"]
    assert await bus.counts(Group("cooks")) == await bus.groups.counts("cooks")
    assert (await bus.activity(None, timedelta(minutes=5))).processed == 0
