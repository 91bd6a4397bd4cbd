"""Which node of a cluster has which slots: what the nodes tell, and whom to believe.

Nodes do not all know of a change at once, and one that was cut off goes on telling what was. Each primary has a number
(its configuration epoch) which is higher than all others' when it gets slots in a failover or a move: so of two that
claim a slot, the one with the higher number has it. What was once told with a higher number is believed for a while,
whatever is told since: a node that is heard now may be the one that was cut off.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from eventbus.contract.inspection import Finding, Severity
from eventbus.redis.address import Place
from eventbus.redis.links import Reply

SLOTS = 16_384
BELIEVED = 30.0  # seconds


class Node(NamedTuple):
    """As a node tells of itself or another. `ranges`: first and last slot of each stretch that it has; `of`: the id of
    the primary that it is a replica of, '' for a primary."""

    id: str
    place: Place
    of: str
    epoch: int
    failing: bool
    ranges: tuple[tuple[int, int], ...]


View = tuple[Node, ...]


def read_view(nodes: bytes, slots: Reply, asked: Place) -> View:
    """`nodes` and `slots`: a node's answers to CLUSTER NODES and CLUSTER SLOTS. `asked`: where it was reached, for a
    node may not know its own host. The second tells under which names the nodes want to be called."""
    named = {row[2].decode(): row for _, _, *rows in slots for row in rows}
    found = []
    for line in nodes.decode(errors="replace").splitlines():
        node_id, where, flags, primary, _, _, epoch, _, *told = line.split(" ")
        host, _, port = where.partition("@")[0].rpartition(":")
        if node_id in named:
            host, port = (named[node_id][0] or b"").decode(), named[node_id][1]
        marks = flags.split(",")
        if "noaddr" in marks or "handshake" in marks:
            continue
        place = Place(asked.host if host in {"", "?"} else host.strip("[]"), int(port))
        of = "" if primary == "-" else primary
        failing = "fail" in marks or "fail?" in marks
        found.append(Node(node_id, place, of, int(epoch), failing, tuple(_ranges(told))))
    return tuple(found)


def _ranges(told: Sequence[str]) -> list[tuple[int, int]]:
    """Slots on their way, in brackets, are where they were for now."""
    stretches = [part.partition("-") for part in told if not part.startswith("[")]
    return [(int(first), int(last or first)) for first, _, last in stretches]


class ClusterMap:
    """`changes`: how often something was told that had not been known."""

    def __init__(self) -> None:
        self.nodes: View = ()
        self.changes = 0
        self._owners: list[Place | None] = [None] * SLOTS
        self._claims: set[tuple[int, Place, int, int]] = set()
        self._confirmed = 0.0
        self._corrected = False
        self._places: frozenset[Place] | None = None  # None: to be made of the owners

    @property
    def places(self) -> frozenset[Place]:
        """Of all that have slots."""
        if self._places is None:
            self._places = frozenset(place for place in self._owners if place is not None)
        return self._places

    def owner(self, slot: int) -> Place | None:
        """None while it is unknown, or nobody has it."""
        return self._owners[slot]

    def examine(self) -> Iterator[Finding]:
        """What the nodes tell of each other: whether each slot has a primary, and each primary a replica."""
        uncovered = self._owners.count(None)
        primaries = [node for node in self.nodes if not node.of and node.ranges]
        if uncovered:
            told = f"{uncovered} of {SLOTS} slots have no node: all publishes are refused, or those of these slots"
            yield Finding("cluster", Severity.ERROR, told, "redis-cli --cluster fix, or bring the lost node back")
        for node in self.nodes:
            if node.failing:
                told = f"{_shown(node.place)} is held for dead by others"
                yield Finding("cluster", Severity.WARNING, told, "see its log, and whether the others reach it")
        followed = {node.of for node in self.nodes if node.of and not node.failing}
        for node in primaries:
            if node.id not in followed:
                told = f"{_shown(node.place)} has no replica: if it dies, its slots are gone, and publishes are refused"
                yield Finding("cluster", Severity.WARNING, told, "redis-cli --cluster add-node … --cluster-slave")
        if not uncovered:
            told = f"{len(primaries)} primaries, {len(self.nodes) - len(primaries)} other nodes, all slots have a node"
            yield Finding("cluster", Severity.OK, told)

    def correct(self, slot: int, place: Place) -> None:
        """A node has said who has this slot now. That is good until the next `take`, which knows whom to believe."""
        if self._owners[slot] != place:
            self._owners[slot] = place
            self._corrected, self._places = True, None
            self.changes += 1

    def take(self, views: Sequence[View], now: float) -> None:
        """What nodes have told. `now`: seconds of a clock that goes on evenly."""
        claims = {
            (node.epoch, node.place, first, last)
            for view in views
            for node in view
            if not node.of
            for first, last in node.ranges
        }
        newest, known = max(claims, default=(0,))[0], max(self._claims, default=(0,))[0]
        if newest < known and now - self._confirmed < BELIEVED:
            claims |= self._claims
        else:
            self._confirmed = now
        self.nodes = max(views, key=_worth)
        if claims == self._claims and not self._corrected:
            return
        owners: list[Place | None] = [None] * SLOTS
        for _, place, first, last in sorted(claims):
            owners[first : last + 1] = [place] * (last + 1 - first)
        changed = owners != self._owners
        self._claims, self._owners, self._corrected, self._places = claims, owners, False, None
        self.changes += changed


def _worth(view: View) -> tuple[bool, int]:
    """Which view to take. Who holds most primaries for dead is cut off from them, whatever it knows beside."""
    primaries = [node for node in view if node.ranges and not node.of]
    alone = 2 * sum(node.failing for node in primaries) > len(primaries)
    return not alone, max((node.epoch for node in view), default=0)


def _shown(place: Place) -> str:
    return f"{place.host}:{place.port}"
