"""A group refuses at import what cannot work at run time."""

from typing import Any

import pytest

from eventbus.context import Context
from eventbus.errors import ConfigurationError
from eventbus.event import Event
from eventbus.group import Group
from eventbus.handling.batch import Batch
from eventbus.handling.listeners import Finished
from eventbus.handling.registry import Registration
from eventbus.policy import RetryPolicy


class Sown(Event, type="field.sown"):
    pass


class Reaped(Event, type="field.reaped"):
    pass


class Ground(Event, type="mill.ground"):
    pass


async def work(event: Event, ctx: Context) -> None:
    return


def test_a_handler_is_found_by_the_type_of_its_event() -> None:
    group = Group("farm")
    assert group.on(Sown, Ground)(work) is work
    assert group.handlers == dict.fromkeys(["field.sown", "mill.ground"], Registration(work, 60.0, group.retry))
    assert repr(group) == "Group('farm', handles=['field.sown', 'mill.ground'])"


def test_a_group_reads_the_streams_of_its_events() -> None:
    group = Group("farm")
    assert group.streams == []
    group.on(Sown, Ground, Reaped)(work)
    assert group.streams == ["field", "mill"]


def test_a_second_handler_for_a_type_is_refused_and_both_are_named() -> None:
    group = Group("farm")
    group.on(Sown)(work)

    async def other(event: Event, ctx: Context) -> None:
        return

    with pytest.raises(ConfigurationError, match=r"farm already handles field\.sown with .*work; register .*other"):
        group.on(Reaped, Sown)(other)
    assert group.handlers["field.sown"].handler is work
    Group("another").on(Sown)(other)


def test_a_plain_function_is_refused() -> None:
    def plain(event: Event, ctx: Context) -> None:
        return

    with pytest.raises(ConfigurationError, match="must be an async function"):
        Group("farm").on(Sown)(plain)  # type: ignore[arg-type]


def test_an_abstract_event_is_refused() -> None:
    class Abstract(Event):
        pass

    with pytest.raises(ConfigurationError, match="Abstract has no event type"):
        Group("farm").on(Abstract)(work)


def test_a_listener_stays_the_function_that_it_was() -> None:
    group = Group("farm")

    def note(finished: Finished) -> None:
        return

    async def tell(finished: Finished) -> None:
        return

    assert group.on_completed(note) is note
    assert group.on_failed(tell) is tell
    assert group.on_dead(note) is note
    assert group.on_error(tell) is tell
    assert group.on_snoozed(tell) is tell
    assert len(group.listeners) == 5


def test_a_handler_has_the_policy_of_its_group_unless_it_has_its_own() -> None:
    group, own = Group("farm", timeout=5.0), RetryPolicy(attempts=1)
    group.on(Sown)(work)
    group.on(Reaped, timeout=None, retry=own)(work)
    assert group.handlers["field.sown"] == Registration(work, 5.0, group.retry)
    assert group.handlers["field.reaped"] == Registration(work, None, own)


def test_a_group_may_have_as_much_in_hand_as_its_batches_need() -> None:
    group = Group("farm", concurrency=3)
    group.on(Sown)(work)
    assert group.in_hand == 3

    @group.on_batch(Reaped, Ground, max_size=50, max_wait=0.1, timeout=9.0)
    async def store(batch: Batch[Event]) -> None:
        return

    assert group.in_hand == 150
    assert group.handlers["field.reaped"] is group.handlers["mill.ground"]
    assert group.label_of(b"mill.ground").endswith("store")
    with pytest.raises(ConfigurationError, match=r"farm already handles field\.reaped with"):
        group.on_batch(Reaped, Ground)(store)


@pytest.mark.parametrize("options", [{"max_size": 0}, {"max_wait": -1.0}, {"max_wait": float("nan")}, {"timeout": 0.0}])
def test_a_batch_that_cannot_be_is_refused(options: Any) -> None:
    async def store(batch: Batch[Sown]) -> None:
        return

    with pytest.raises(ConfigurationError, match=r"farm: .*store: .*must be"):
        Group("farm").on_batch(Sown, **options)(store)


@pytest.mark.parametrize("name", ["", "Farm", "a b", "-a", "a:b", "ä", "a\n", "a{b}"])
def test_a_name_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="lower-case"):
        Group(name)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"concurrency": 0}, "concurrency=0 must be at least 1"),
        ({"timeout": 0}, "timeout=0 must be at least 0.001"),
        ({"lease": 0.05}, "lease=0.05 must be at least 0.1"),
        ({"crash_budget": 0}, "crash_budget=0 must be at least 1"),
        ({"middleware": [print]}, "middleware .*print.* must be an async function"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        Group("farm", **options)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"lower-case.*concurrency.*timeout.*lease.*crash_budget"):
        Group("Farm", concurrency=0, timeout=-1, lease=0, crash_budget=0)
    Group("farm", timeout=None)
