"""What nodes tell of a cluster, and whom to believe when they differ."""

from collections.abc import Sequence

import pytest
from redis.crc import key_slot

from eventbus.contract.inspection import Severity
from eventbus.redis.address import Place
from eventbus.redis.cluster_map import BELIEVED, SLOTS, ClusterMap, Node, View, read_view

A, B, C = (Place("10.0.0.1", port) for port in (7001, 7002, 7003))
HALF = SLOTS // 2
ASKED = Place("asked", 1)


def node(place: Place, epoch: int, *ranges: tuple[int, int], of: str = "", failing: bool = False) -> Node:
    return Node(f"id-{place.port}", place, of, epoch, failing, ranges)


def owners(known: ClusterMap) -> tuple[Place | None, Place | None]:
    return known.owner(0), known.owner(SLOTS - 1)


def taken(*views: View) -> ClusterMap:
    known = ClusterMap()
    known.take(views, 0.0)
    return known


BEFORE = (node(A, 1, (0, HALF - 1)), node(B, 2, (HALF, SLOTS - 1)))
AFTER = (node(C, 3, (0, HALF - 1)), node(B, 2, (HALF, SLOTS - 1)))


def test_of_two_that_claim_a_slot_the_one_with_the_higher_number_has_it() -> None:
    for views in ((BEFORE, AFTER), (AFTER, BEFORE)):
        known = taken(*views)
        assert owners(known) == (C, B)
        assert known.places == {B, C}


def test_what_was_cut_off_is_not_believed_for_a_while() -> None:
    known = taken(AFTER)
    known.take([BEFORE], BELIEVED / 2)
    assert owners(known) == (C, B)
    assert known.changes == 1
    known.take([BEFORE], BELIEVED * 2)
    assert owners(known) == (A, B), "a cluster that was made anew counts from one again"


def test_who_holds_most_for_dead_is_not_believed_about_the_others() -> None:
    """As long as none has been elected, all numbers are the same."""
    cut_off = (node(A, 1, (0, 0)), node(B, 2, (1, 1), failing=True), node(C, 3, (2, SLOTS - 1), failing=True))
    most = (node(A, 1, (0, 0), failing=True), node(B, 2, (1, 1)), node(C, 3, (2, SLOTS - 1)))
    for views in ((cut_off, most), (most, cut_off)):
        assert {each.place for each in taken(*views).nodes if each.failing} == {A}


def test_what_a_node_says_of_a_slot_holds_until_the_next_look() -> None:
    known = taken(BEFORE)
    known.correct(0, C)
    assert owners(known) == (C, B)
    assert known.owner(1) == A
    assert known.places == {A, B, C}
    known.take([BEFORE], 1.0)
    assert owners(known) == (A, B)
    assert known.places == {A, B}


def test_a_look_that_tells_nothing_new_changes_nothing() -> None:
    known = taken(BEFORE)
    before = known.changes
    known.take([BEFORE], 1.0)
    known.correct(0, A)
    assert known.changes == before


@pytest.mark.parametrize(
    ("view", "severity", "words"),
    [
        ([BEFORE[0]], Severity.ERROR, "8192 of 16384 slots have no node"),
        (BEFORE, Severity.WARNING, "10.0.0.1:7001 has no replica"),
        ([*BEFORE, node(C, 0, of="id-7001", failing=True)], Severity.WARNING, "10.0.0.1:7003 is held for dead"),
        ([*BEFORE, node(C, 0, of="id-7001")], Severity.OK, "2 primaries, 1 other nodes"),
    ],
)
def test_what_an_operator_is_told(view: Sequence[Node], severity: Severity, words: str) -> None:
    found = [one for one in taken(tuple(view)).examine() if one.severity is severity]
    assert any(one.message.startswith(words) for one in found), found


NODES = b"""\
aa 10.0.0.1:7001@17001,one.example myself,master - 0 0 4 connected 0-99 200 [93-<-bb]
bb :7002@17002 master - 0 1 5 connected 300-16383
cc 10.0.0.3:7003@17003 slave,fail aa 0 1 4 connected
dd :0@0 master,noaddr - 0 1 1 disconnected
ee 10.0.0.5:7005@17005 handshake - 0 1 0 connected
"""
ROWS = [[0, 99, [b"one.example", 7001, b"aa", []], [None, 7003, b"cc", []]]]


def test_nodes_are_called_as_they_want_to_be() -> None:
    one, two, three = read_view(NODES, ROWS, ASKED)
    assert one == Node("aa", Place("one.example", 7001), "", 4, False, ((0, 99), (200, 200)))
    assert two == Node("bb", Place("asked", 7002), "", 5, False, ((300, 16383),))
    assert three == Node("cc", Place("asked", 7003), "aa", 4, True, ())


def test_a_stream_s_keys_share_a_slot() -> None:
    assert key_slot(b"eb:{lead}:stream") == key_slot(b"eb:{lead}:billing:retry")
