"""The gateway's own counts for Prometheus. Needs prometheus-client, an extra."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from eventbus.telemetry.metrics import Histogram
from gateway.http.traffic import Traffic

_LABELS = ("method", "route")


class Exposition(Collector):
    """See gateway.http.traffic."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic

    def collect(self) -> Iterable[Metric]:
        total = CounterMetricFamily("gateway_requests_total", "Requests by their answer.", labels=(*_LABELS, "status"))
        seconds = HistogramMetricFamily("gateway_request_seconds", "How long answers took.", labels=_LABELS)
        for key, requests in self._traffic:
            for status, count in sorted(requests.statuses.items()):
                total.add_metric((*key, str(status)), count)
            seconds.add_metric(key, list(_buckets(requests.seconds)), requests.seconds.total)
        return total, seconds


def registry_of(traffic: Traffic) -> CollectorRegistry:
    """A registry with these counts alone, apart from those in the default registry."""
    registry = CollectorRegistry()
    registry.register(Exposition(traffic))
    return registry


def _buckets(histogram: Histogram) -> Iterator[tuple[str, float]]:
    """(upper bound, cumulative count), as the format wants them."""
    seen = 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        seen += count
        yield ("+Inf" if bound == float("inf") else str(bound)), seen
