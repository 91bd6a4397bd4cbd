from collections import Counter

import pytest

from eventbus.contract.priorities import LANES, shares


@pytest.mark.parametrize("credit", [0, 1, 2, 9, 10, 100, 1000])
def test_shares_add_up_to_the_credit(credit: int) -> None:
    assert sum(shares(credit)) == credit


def test_a_large_credit_is_divided_by_weight() -> None:
    counts = shares(2929)
    for priority in LANES:
        assert counts[priority - 1] == pytest.approx(1000 / priority, rel=0.1)


def test_single_turns_follow_the_same_weights() -> None:
    turns = Counter(shares(1).index(1) + 1 for _ in range(29_290))
    for priority in LANES:
        assert turns[priority] == pytest.approx(10_000 / priority, rel=0.15)
