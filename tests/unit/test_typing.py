"""What a type checker says of handlers. `make check` runs it over this file: an ignore that is not needed is an error.

Nothing here is more than registered.
"""

from eventbus.context import Context
from eventbus.event import Event
from eventbus.group import Group
from eventbus.handling.batch import Batch


class Red(Event, type="colour.red"):
    pass


class Green(Event, type="colour.green"):
    pass


class Blue(Event, type="colour.blue"):
    pass


class Grey(Event, type="colour.grey"):
    pass


async def red(event: Red, ctx: Context) -> None: ...
async def red_or_green(event: Red | Green, ctx: Context) -> None: ...
async def red_or_green_or_blue(event: Red | Green | Blue, ctx: Context) -> None: ...
async def anything(event: Event, ctx: Context) -> None: ...
async def reds(batch: Batch[Red]) -> None: ...
async def reds_and_greens(batch: Batch[Red | Green]) -> None: ...
async def all_kinds(batch: Batch[Event]) -> None: ...


def test_a_handler_takes_the_union_of_its_events() -> None:
    Group("a").on(Red)(red)
    Group("a").on(Red, Green)(red_or_green)
    Group("a").on(Red, Green, Blue, timeout=None)(red_or_green_or_blue)


def test_a_handler_may_take_more_than_it_is_given() -> None:
    Group("a").on(Red)(red_or_green)
    Group("a").on(Red, Green)(anything)
    Group("a").on(Red, Green, Blue, Grey)(anything)


def test_a_handler_must_not_take_less_than_it_is_given() -> None:
    Group("a").on(Green)(red)  # type: ignore[arg-type]
    Group("a").on(Red, Green)(red)  # type: ignore[arg-type]
    Group("a").on(Red, Green, Blue)(red_or_green)  # type: ignore[arg-type]


def test_batches_likewise() -> None:
    Group("a").on_batch(Red, max_size=10)(reds)
    Group("a").on_batch(Red, Green)(reds_and_greens)
    Group("a").on_batch(Red)(reds_and_greens)
    Group("a").on_batch(Red, Green, Blue, Grey)(all_kinds)
    Group("a").on_batch(Green)(reds)  # type: ignore[arg-type]
    Group("a").on_batch(Red, Green)(reds)  # type: ignore[arg-type]
