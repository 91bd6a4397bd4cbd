"""What a bus tells of itself: metrics and spans. See docs/observability.md.

    metrics     counting; needs nothing but this package
    survey      a background role that reads what the streams hold
    serving     metrics of a process, where its settings ask for them
    prometheus  shows the metrics; imports prometheus-client
    tracing     spans; imports opentelemetry-api

The last two are imported where they are wanted: their packages are an extra.
"""

from eventbus.telemetry.metrics import DEFINITIONS, Definition, Metrics, Spool
from eventbus.telemetry.serving import serving
from eventbus.telemetry.survey import Survey

__all__ = ["DEFINITIONS", "Definition", "Metrics", "Spool", "Survey", "serving"]
