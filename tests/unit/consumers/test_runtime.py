"""Which groups a worker runs."""

import pytest

from consumers.runtime import choose
from eventbus import ConfigurationError
from handlers import GROUPS


def test_none_named_is_all() -> None:
    assert choose([]) == GROUPS


def test_each_named_once_in_the_order_of_the_names() -> None:
    assert [group.name for group in choose(["notification", "lead", "notification"])] == ["notification", "lead"]


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(
        ConfigurationError, match=r"called leads; there are lead, lead-automation, notification, task-a"
    ):
        choose(["lead", "leads"])
