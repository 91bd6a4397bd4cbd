"""The tree of a trace: each event behind its cause, whatever was recorded first."""

import random
from datetime import timedelta

import pytest

from eventbus.contract.history import Ending, Execution
from eventbus.contract.traces import Found, FoundIn, Tree, unfold
from eventbus.event import Envelope, uuid7


def event(cause: Envelope | str | None = None, name: str = "lead.created") -> Envelope:
    causation_id = cause.id if isinstance(cause, Envelope) else cause
    return Envelope(uuid7(), name, b"{}", correlation_id="c-1", causation_id=causation_id)


def execution(of: Envelope, outcome: Ending, attempt: int = 1, group: str = "billing") -> Execution:
    return Execution(of.id, group, attempt, outcome, 0.5, None, of.time + timedelta(seconds=attempt))


def shape(tree: Tree) -> list[tuple[str, int]]:
    return [(node.envelope.id, node.depth) for node in tree.nodes]


ROOT = event()
CHILD = event(ROOT)
GRANDCHILD = event(CHILD)
SIBLING = event(ROOT)
LATE = event(GRANDCHILD)
ALL = [ROOT, CHILD, GRANDCHILD, SIBLING, LATE]
ORDER = [(ROOT.id, 0), (CHILD.id, 1), (GRANDCHILD.id, 2), (LATE.id, 3), (SIBLING.id, 1)]


def test_causes_stand_before_their_effects_whatever_was_recorded_first() -> None:
    for seed in range(20):
        shuffled = random.Random(seed).sample(ALL, len(ALL))
        assert shape(unfold("c-1", map(Found, shuffled))) == ORDER, seed


def test_an_effect_whose_clock_was_slow_stands_behind_its_cause_all_the_same() -> None:
    early = event()
    late_cause = event()
    effect = early._replace(causation_id=late_cause.id)
    tree = unfold("c-1", [Found(effect), Found(late_cause)])
    assert shape(tree) == [(late_cause.id, 0), (early.id, 1)]
    assert tree.began_at == early.time, "no offset is below zero"
    assert tree.offset(late_cause.time) >= 0


def test_what_has_an_unknown_cause_stands_at_the_root_and_says_so() -> None:
    orphan = event("01a20176-0000-7000-8000-00000000dead")
    below = event(orphan)
    tree = unfold("c-1", map(Found, [below, orphan, ROOT]))
    assert shape(tree) == [(ROOT.id, 0), (orphan.id, 0), (below.id, 1)]
    assert [node.orphan for node in tree.nodes] == [False, True, False]


def test_what_leads_to_itself_is_shown_once() -> None:
    one, two = event(), event()
    loop = [one._replace(causation_id=two.id), two._replace(causation_id=one.id)]
    itself = event()
    tree = unfold("c-1", map(Found, [*loop, itself._replace(causation_id=itself.id), ROOT]))
    assert shape(tree) == [(ROOT.id, 0), (one.id, 0), (two.id, 1), (itself.id, 0)]


def test_a_long_chain_is_no_deep_recursion() -> None:
    chain = [event()]
    for _ in range(5_000):
        chain.append(event(chain[-1]))
    tree = unfold("c-1", map(Found, reversed(chain)))
    assert [node.depth for node in tree.nodes] == list(range(5_001))


def test_of_an_event_that_was_found_twice_the_first_counts() -> None:
    [node] = unfold("c-1", [Found(ROOT), Found(ROOT, FoundIn.OUTBOX)]).nodes
    assert node.place is FoundIn.RECORDED


@pytest.mark.parametrize(
    ("outcomes", "failed"),
    [
        ([Ending.COMPLETED], False),
        ([Ending.FAILED, Ending.COMPLETED], False),
        ([Ending.FAILED], True),
        ([Ending.FAILED, Ending.DEAD], True),
        ([Ending.FAILED, Ending.SNOOZED], False),
        ([], False),
    ],
)
def test_a_failure_counts_until_a_later_attempt_succeeds(outcomes: list[Ending], failed: bool) -> None:
    done = [execution(ROOT, outcome, attempt) for attempt, outcome in enumerate(outcomes, 1)]
    [node] = unfold("c-1", [Found(ROOT)], [*done, execution(CHILD, Ending.DEAD)]).nodes
    assert list(node.executions) == done, "and none of another event's"
    assert node.failed is failed


def test_a_failure_of_one_group_is_not_healed_by_another() -> None:
    done = [execution(ROOT, Ending.DEAD, 1, "billing"), execution(ROOT, Ending.COMPLETED, 2, "shipping")]
    [node] = unfold("c-1", [Found(ROOT)], done).nodes
    assert node.failed


def test_of_nothing_there_is_no_tree() -> None:
    with pytest.raises(ValueError, match="c-1"):
        unfold("c-1", [])
