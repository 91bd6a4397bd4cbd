"""Counting. A few dictionary entries per event on the event loop's thread; whoever exposes them reads from any thread.

Labels are bounded: streams and groups that the deployment has, types that this process knows (any other is "unknown"),
outcomes, statuses. Never ids, organizations or the text of errors.
"""

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from eventbus.contract.delivery import Ack, Dead, Outcome, Release, Retry, Snooze
from eventbus.contract.inspection import OutboxStanding, StreamState
from eventbus.contract.outgoing import Outgoing
from eventbus.errors import UnknownEventType
from eventbus.event import Envelope, Status, event_class, stream_of, unix_ms

UNKNOWN = "unknown"  # the label of every type that no imported module defines
FAILED = "failed"  # the status of a publish that raised

HANDLER_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
END_TO_END_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0)

# The labels of outcomes.
OUTCOMES: dict[type[Outcome], str] = {
    Ack: "ack",
    Retry: "retry",
    Snooze: "snooze",
    Release: "release",
    Dead: "dead",
}


class Definition(NamedTuple):
    """One metric, as Prometheus knows it. `kind`: counter, gauge or histogram."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


DEFINITIONS = (
    Definition("eventbus_published_total", "counter", ("stream", "status"), "Publishes by what became of them."),
    Definition("eventbus_processed_total", "counter", ("group", "type", "outcome"), "Executions by their outcome."),
    Definition("eventbus_handler_seconds", "histogram", ("group", "type"), "How long handlers ran."),
    Definition("eventbus_end_to_end_seconds", "histogram", ("group",), "From the making of an event to its success."),
    Definition("eventbus_overdue_total", "counter", ("group",), "Handlers that went on 5 s after their timeout."),
    Definition("eventbus_in_process", "gauge", ("group",), "Handlers that run in this process now."),
    Definition("eventbus_stream_length", "gauge", ("stream",), "Entries in the stream, those that are done included."),
    Definition("eventbus_scheduled", "gauge", ("stream",), "Delayed events that are not due."),
    Definition("eventbus_dead_letters", "gauge", ("stream",), "Dead letters."),
    Definition("eventbus_lag", "gauge", ("stream", "group"), "Undelivered by the server's count; absent if unknown."),
    Definition("eventbus_backlog", "gauge", ("stream", "group"), "Undelivered; counted to 1,000 if lag is unknown."),
    Definition("eventbus_pending", "gauge", ("stream", "group"), "Delivered and not settled."),
    Definition("eventbus_delayed", "gauge", ("stream", "group"), "Of those pending, how many rest until a retry."),
    Definition("eventbus_oldest_undelivered_seconds", "gauge", ("stream", "group"), "Age of the oldest; 0 if none."),
    Definition(
        "eventbus_oldest_unacked_seconds", "gauge", ("stream", "group"), "Age of the oldest pending; 0 if none."
    ),
    Definition("eventbus_spool_records", "gauge", (), "Operations that wait in this process' spool."),
    Definition("eventbus_spool_bytes", "gauge", (), "Size of this process' spool."),
    Definition("eventbus_spool_rejected", "gauge", (), "Lines that were set aside from it, for somebody to look at."),
    Definition("eventbus_outbox_waiting", "gauge", (), "Rows of the outbox that wait for the relay; up to 10,000."),
    Definition("eventbus_outbox_oldest_seconds", "gauge", (), "Age of the oldest of these; 0 if none."),
    Definition("eventbus_outbox_set_aside", "gauge", (), "Rows that cannot reach their stream as they are."),
    Definition("eventbus_circuits_open", "gauge", (), "Services outside that are not called now, for they fail."),
    Definition("eventbus_log_lines_lost_total", "counter", (), "Lines that could not be logged as they should be."),
    Definition("eventbus_background_ends_total", "counter", (), "Background tasks that ended, and were begun again."),
    Definition("eventbus_up", "gauge", ("server",), "Whether redis and postgres answered the last survey."),
)


class Spool(Protocol):
    """What metrics ask of the spool. All may be read from any thread."""

    @property
    def records(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def rejected(self) -> int: ...


class Histogram:
    """Counts by upper bound; the last count is of what exceeds them all."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0


class Executions:
    """The executions of one group's handler of one type. `end_to_end` is the group's."""

    __slots__ = ("end_to_end", "outcomes", "seconds")

    def __init__(self, end_to_end: Histogram) -> None:
        self.end_to_end = end_to_end
        self.outcomes: dict[type[Outcome], int] = dict.fromkeys(OUTCOMES, 0)
        self.seconds = Histogram(HANDLER_BOUNDS)


class Metrics:
    """What one bus has done since it was made, and what the last survey of its servers found.

    exposed  whether anybody can read them: surveys cost the server something, and are made for a reader only
    """

    def __init__(self) -> None:
        self.exposed = False
        self.published: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.executions: dict[tuple[str, str], Executions] = {}
        self.end_to_end: dict[str, Histogram] = {}
        self.overdue: defaultdict[str, int] = defaultdict(int)  # by group
        self.in_process: dict[tuple[str, str], Callable[[], int]] = {}  # by group and consumer
        self.streams: Sequence[StreamState] = ()
        self.circuits_open: int | None = None
        self.up: dict[str, bool] = {}
        self.spool: Spool | None = None
        self.outbox: OutboxStanding | None = None

    def count_published(self, outgoing: Sequence[Outgoing], statuses: Iterable[Status]) -> None:
        for item, status in zip(outgoing, statuses, strict=True):
            self.published[stream_of(item.envelope.type), status] += 1

    def count_collected(self, events: Sequence[Envelope]) -> None:
        """Events of a session that is being committed are in their streams."""
        for event in events:
            self.published[event.stream, Status.STORED] += 1

    def count_failed(self, outgoing: Sequence[Outgoing]) -> None:
        """A publish raised; of several, some may be stored all the same."""
        for item in outgoing:
            self.published[item.envelope.stream, FAILED] += 1

    def count_finished(self, group: str, outcome: Outcome, envelope: Envelope | None, seconds: float) -> None:
        """An execution: see eventbus.handling.listeners.Finished. Runs for every event; nothing here may take long."""
        executions = self.executions.get((group, envelope.type)) if envelope is not None else None
        if executions is None:
            executions = self._begin(group, envelope)
        kind: type[Outcome] = type(outcome)
        executions.outcomes[kind] += 1
        if seconds:  # else nothing ran
            histogram = executions.seconds
            histogram.counts[bisect_left(HANDLER_BOUNDS, seconds)] += 1
            histogram.total += seconds
        if kind is Ack and envelope is not None:
            age = time.time() - unix_ms(envelope.id) / 1000
            histogram = executions.end_to_end
            histogram.counts[bisect_left(END_TO_END_BOUNDS, age)] += 1
            histogram.total += max(age, 0.0)  # clocks differ between machines

    def count_overdue(self, group: str) -> None:
        """A handler goes on though its time was up some seconds ago: see eventbus.consuming.stubborn_handlers."""
        self.overdue[group] += 1

    def _begin(self, group: str, envelope: Envelope | None) -> Executions:
        key = (group, UNKNOWN if envelope is None else _label(envelope.type))
        end_to_end = self.end_to_end.setdefault(group, Histogram(END_TO_END_BOUNDS))
        return self.executions.setdefault(key, Executions(end_to_end))


def _label(event_type: str) -> str:
    """The label of a type, UNKNOWN if no class here has it: it comes with the event, and anybody may have written
    that."""
    try:
        event_class(event_type)
    except UnknownEventType:
        return UNKNOWN
    return event_type
