"""The way of a request through the system, as a tree: events, what each group made of them, and what followed from it.

`eventbus.postgres.event_trace` gathers the events, here they are put in order: an event stands behind its cause,
whichever of the two was recorded first, and the effects of one cause stand in the order of time.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from eventbus.contract.history import Ending, Execution
from eventbus.contract.inspection import Related
from eventbus.event import Envelope

LIMIT = 10_000  # events of one trace


class FoundIn(StrEnum):
    """Where an event was found.

    RECORDED   in the event store
    OUTBOX     committed, and on its way to its stream
    SCHEDULED  kept back until it is due
    STREAM     in its stream, and not recorded yet; or left out, since another event held its dedupe key
    """

    RECORDED = "recorded"
    OUTBOX = "outbox"
    SCHEDULED = "scheduled"
    STREAM = "stream"


class Found(NamedTuple):
    """An event of a trace. `due`: the moment before which it is not delivered, if one was asked for and is known."""

    envelope: Envelope
    place: FoundIn = FoundIn.RECORDED
    due: datetime | None = None


def carried(related: Iterable[Related]) -> list[Found]:
    """Events that Redis has told of: from streams, or with the seconds until they are due from schedules."""
    now = datetime.now(UTC)
    return [
        Found(envelope, FoundIn.STREAM)
        if seconds is None
        else Found(envelope, FoundIn.SCHEDULED, now + timedelta(seconds=seconds))
        for envelope, seconds in related
    ]


@dataclass(frozen=True, slots=True)
class Node:
    """An event in its place. `depth`: 0 directly below the request. `orphan`: it stands there though it has a
    cause, which was not found, or is one of its own effects. `executions` in the order in which they ended."""

    envelope: Envelope
    place: FoundIn
    due: datetime | None
    depth: int
    orphan: bool
    executions: tuple[Execution, ...]

    @property
    def last(self) -> dict[str, Execution]:
        """By group, the execution that ended last."""
        return {execution.group: execution for execution in self.executions}

    @property
    def failed(self) -> bool:
        """Whether a group has given it up, or has failed and is to try again."""
        return any(execution.outcome in {Ending.DEAD, Ending.FAILED} for execution in self.last.values())


@dataclass(frozen=True, slots=True)
class Tree:
    """`nodes`: each behind its cause, with all that follows from it before the next effect of the same cause.
    `complete`: whether all events of the correlation id are among them."""

    correlation_id: str
    began_at: datetime
    nodes: tuple[Node, ...]
    complete: bool = True

    def offset(self, moment: datetime) -> float:
        """Seconds since the request's first event was made. Below 0 where clocks differ."""
        return (moment - self.began_at).total_seconds()


def unfold(
    correlation_id: str, found: Iterable[Found], executions: Iterable[Execution] = (), *, complete: bool = True
) -> Tree:
    """The tree of these events. If one was found several times, the first counts. Raises ValueError for none at all."""
    known: dict[str, Found] = {}
    for one in found:
        known.setdefault(one.envelope.id, one)
    if not known:
        raise ValueError(f"there is no event of {correlation_id}")
    done: dict[str, list[Execution]] = {}
    for execution in executions:
        done.setdefault(execution.event_id, []).append(execution)
    nodes = tuple(
        Node(
            known[event_id].envelope,
            known[event_id].place,
            known[event_id].due,
            depth,
            depth == 0 and known[event_id].envelope.causation_id is not None,
            tuple(done.get(event_id, ())),
        )
        for event_id, depth in _in_order({one.envelope.id: one.envelope.causation_id for one in known.values()})
    )
    return Tree(correlation_id, min(node.envelope.time for node in nodes), nodes, complete)


def _in_order(causes: dict[str, str | None]) -> Iterator[tuple[str, int]]:
    """Each id once, with its depth. Without recursion: a chain may be as long as the trace."""
    effects: dict[str | None, list[str]] = {}
    for event_id in sorted(causes):  # an id rises with time
        cause = causes[event_id]
        effects.setdefault(cause if cause in causes else None, []).append(event_id)
    placed: set[str] = set()
    # Events that cause each other in a circle hang below no root: they come last, from their oldest on.
    for root in (*effects.get(None, ()), *sorted(causes)):
        waiting = [(root, 0)]
        while waiting:
            event_id, depth = waiting.pop()
            if event_id not in placed:
                placed.add(event_id)
                yield event_id, depth
                waiting += [(effect, depth + 1) for effect in reversed(effects.get(event_id, ()))]
