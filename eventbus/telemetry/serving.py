"""Metrics of a process, where its settings ask for them."""

from collections.abc import Iterator
from contextlib import contextmanager

from eventbus.errors import ConfigurationError
from eventbus.process.safe_logging import get_logger
from eventbus.settings import Settings
from eventbus.telemetry.metrics import Metrics

log = get_logger("eventbus.metrics")


@contextmanager
def serving(metrics: Metrics, settings: Settings) -> Iterator[None]:
    """Serve the metrics on `settings.metrics_port` inside this block, if there is one; 0 takes any free port, and logs
    it.

    Raises ConfigurationError if prometheus-client is not installed, or the port cannot be had."""
    if settings.metrics_port is None:
        yield
        return
    try:
        from eventbus.telemetry import prometheus  # noqa: PLC0415 - prometheus-client is an extra
    except ImportError:
        raise ConfigurationError("metrics need prometheus-client: pip install 'eventbus[telemetry]'") from None
    port, stop = prometheus.serve(metrics, settings.metrics_port, settings.metrics_host)
    log.info("serving metrics", host=settings.metrics_host, port=port)
    try:
        yield
    finally:
        stop()
