"""What a group that is ordered by key takes, and what it refuses."""

import pytest

from eventbus import Batch, ConfigurationError, Event, Group


class Moved(Event, type="piece.moved"):
    piece: str


def test_batches_have_no_order_by_key() -> None:
    group = Group("players", ordered=True)
    with pytest.raises(ConfigurationError, match=r"players: .*play: no batches on a group that is ordered"):

        @group.on_batch(Moved)
        async def play(batch: Batch[Moved]) -> None:
            """Never registered."""


def test_nor_have_taps() -> None:
    group = Group("players", ordered=True)
    with pytest.raises(ConfigurationError, match="a tap has no order by key"):

        @group.tap()
        async def watch(events: object, bus: object) -> None:
            """Never registered."""


def test_other_groups_are_not_ordered() -> None:
    assert not Group("players").ordered
