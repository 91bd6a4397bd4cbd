"""What a scrape says, as numbers."""

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from eventbus.telemetry import Metrics
from eventbus.telemetry.prometheus import render

Samples = dict[tuple[str, ...], float]  # (name, label value, …) to number; labels in the order of their names


def parse(text: str) -> Samples:
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(metrics: Metrics) -> Samples:
    """The bus' own, and nothing of the process."""
    return parse(render(metrics, CollectorRegistry()).decode())
