"""Metrics for Prometheus: registered with a registry of the program's choosing, or served on a port of their own."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from prometheus_client import REGISTRY as DEFAULT
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from eventbus.contract.inspection import GroupState, StreamState
from eventbus.errors import ConfigurationError
from eventbus.process.safe_logging import lost_lines
from eventbus.process.supervision import deaths
from eventbus.telemetry.metrics import DEFINITIONS, OUTCOMES, Histogram, Metrics

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

# One row of a metric: its labels, and a number or a histogram.
Row = tuple[tuple[str, ...], float | Histogram]
K = TypeVar("K")
V = TypeVar("V")


class Exposition(Collector):
    """Builds what Prometheus reads from the counts as they are at that moment; asks no server anything."""

    def __init__(self, metrics: Metrics) -> None:
        metrics.exposed = True
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        rows = {**_counted(self._metrics), **_surveyed(self._metrics)}
        for name, kind, labels, text in DEFINITIONS:
            yield _FAMILIES[kind](name, text, labels, rows[name])

    def describe(self) -> Iterable[Metric]:
        """The metrics without rows: a registry compares their names, and asks for them while nothing is counted yet."""
        return [_FAMILIES[kind](name, text, labels, []) for name, kind, labels, text in DEFINITIONS]


def register(metrics: Metrics, registry: CollectorRegistry = DEFAULT) -> Collector:
    """Show the metrics of a bus in a registry, for an endpoint of the program's own; returns what to unregister.

    Raises ConfigurationError if another bus' metrics are there already."""
    exposition = Exposition(metrics)
    try:
        registry.register(exposition)
    except ValueError:
        raise ConfigurationError("metrics of a bus are in this registry already: give each bus its own") from None
    return exposition


def render(metrics: Metrics, registry: CollectorRegistry = DEFAULT) -> bytes:
    """What a scrape is answered with, as CONTENT_TYPE: the bus' metrics and what else is in the registry."""
    return generate_latest(_joined(metrics, registry))


def serve(
    metrics: Metrics, port: int, host: str = "127.0.0.1", registry: CollectorRegistry = DEFAULT
) -> tuple[int, Callable[[], None]]:
    """Answer scrapes of /metrics, as `render` does, from a thread of its own; returns the port and a function to end
    it.

    Port 0 takes any that is free. Raises ConfigurationError if the port cannot be had."""
    try:
        server, thread = start_http_server(port, host, _joined(metrics, registry))
    except OSError as error:
        raise ConfigurationError(f"cannot serve metrics on {host}:{port}: {error.strerror or error}") from None

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, stop


def _joined(metrics: Metrics, registry: CollectorRegistry) -> CollectorRegistry:
    """The bus' metrics and those of the other registry in one. The other is left as it is, so that several buses of one
    process do not meet in it."""
    joined = CollectorRegistry()
    register(metrics, joined)
    joined.register(registry)
    return joined


def _counted(metrics: Metrics) -> dict[str, list[Row]]:
    executions = _copied(metrics.executions)
    spool = metrics.spool
    return {
        "eventbus_published_total": [(labels, count) for labels, count in _copied(metrics.published)],
        "eventbus_processed_total": [
            ((*key, OUTCOMES[outcome]), count) for key, done in executions for outcome, count in done.outcomes.items()
        ],
        "eventbus_handler_seconds": [(key, done.seconds) for key, done in executions],
        "eventbus_end_to_end_seconds": [((group,), took) for group, took in _copied(metrics.end_to_end)],
        "eventbus_overdue_total": [((group,), count) for group, count in _copied(metrics.overdue)],
        "eventbus_in_process": _in_process(metrics),
        "eventbus_log_lines_lost_total": [((), lost_lines())],
        "eventbus_background_ends_total": [((), deaths())],
        "eventbus_spool_records": [] if spool is None else [((), spool.records)],
        "eventbus_spool_bytes": [] if spool is None else [((), spool.size)],
        "eventbus_spool_rejected": [] if spool is None else [((), spool.rejected)],
    }


def _in_process(metrics: Metrics) -> list[Row]:
    groups: Counter[str] = Counter()
    for (group, _), count in _copied(metrics.in_process):
        groups[group] += count()
    return [((group,), running) for group, running in groups.items()]


def _copied(counts: Mapping[K, V]) -> list[tuple[K, V]]:
    """The items, sorted. The loop may be counting meanwhile, so the dictionary is copied first: that is one step that
    no other thread comes between. Going through its items is not: each may set the garbage collector off, and with it
    code that lets other threads in."""
    return sorted(dict(counts).items())


def _surveyed(metrics: Metrics) -> dict[str, list[Row]]:
    streams, outbox = metrics.streams, metrics.outbox
    return {
        "eventbus_outbox_waiting": [] if outbox is None else [((), outbox.rows)],
        "eventbus_outbox_oldest_seconds": [] if outbox is None else [((), outbox.seconds)],
        "eventbus_outbox_set_aside": [] if outbox is None else [((), outbox.aside)],
        "eventbus_up": [((server,), float(up)) for server, up in _copied(metrics.up)],
        "eventbus_circuits_open": [] if metrics.circuits_open is None else [((), metrics.circuits_open)],
        "eventbus_stream_length": _each_stream(streams, lambda stream: stream.length),
        "eventbus_scheduled": _each_stream(streams, lambda stream: stream.scheduled),
        "eventbus_dead_letters": _each_stream(streams, lambda stream: stream.dead),
        "eventbus_lag": _each_group(streams, lambda group: group.lag),
        "eventbus_backlog": _each_group(streams, lambda group: group.backlog),
        "eventbus_pending": _each_group(streams, lambda group: group.pending),
        "eventbus_delayed": _each_group(streams, lambda group: group.delayed),
        "eventbus_oldest_undelivered_seconds": _each_group(streams, lambda group: group.oldest_undelivered or 0.0),
        "eventbus_oldest_unacked_seconds": _each_group(streams, lambda group: group.oldest_unacked or 0.0),
    }


def _each_stream(streams: Iterable[StreamState], number: Callable[[StreamState], float]) -> list[Row]:
    return [((stream.name,), number(stream)) for stream in streams]


def _each_group(streams: Iterable[StreamState], number: Callable[[GroupState], float | None]) -> list[Row]:
    """What is unknown has no row: 0 would say that all is well."""
    found = (((stream.name, group.name), number(group)) for stream in streams for group in stream.groups)
    return [(labels, value) for labels, value in found if value is not None]


def _counter(name: str, text: str, labels: tuple[str, ...], rows: list[Row]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, number in rows:
        assert not isinstance(number, Histogram), f"{name} is a counter"
        family.add_metric(values, number)
    return family


def _gauge(name: str, text: str, labels: tuple[str, ...], rows: list[Row]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, number in rows:
        assert not isinstance(number, Histogram), f"{name} is a gauge"
        family.add_metric(values, number)
    return family


def _histogram(name: str, text: str, labels: tuple[str, ...], rows: list[Row]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, histogram in rows:
        assert isinstance(histogram, Histogram), f"{name} is a histogram"
        family.add_metric(values, list(_buckets(histogram)), histogram.total)
    return family


def _buckets(histogram: Histogram) -> Iterator[tuple[str, float]]:
    """Cumulative, as the format wants them."""
    seen = 0
    for bound, count in zip((*histogram.bounds, float("inf")), list(histogram.counts), strict=True):
        seen += count
        yield ("+Inf" if bound == float("inf") else str(bound)), seen


_FAMILIES: dict[str, Callable[[str, str, tuple[str, ...], list[Row]], Metric]] = {
    "counter": _counter,
    "gauge": _gauge,
    "histogram": _histogram,
}
