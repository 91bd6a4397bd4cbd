"""`python -m benchmarks.telemetry`: what counting and spans cost, each beside a bus without them, in one run.

In processor time of this process, and of the best round: other work on the machine only ever adds to it.

nothing      the bus' own listener and counters taken out
metrics      as it comes
not sampled  an SDK is set up, and samples nothing
spans        an SDK is set up, samples everything, and its exporter throws all away
"""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from rich.console import Console
from rich.table import Table

from benchmarks.contenders import ours
from benchmarks.running.servers import flush, server
from eventbus import EventBus
from eventbus.process.logs import configure
from eventbus.process.loop import run


class _Uncounted:
    """Takes the place of Metrics, and counts nothing."""

    def count_published(self, *_: object) -> None:
        return

    def count_failed(self, *_: object) -> None:
        return


class _Nowhere(SpanExporter):
    def export(self, _spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def _nothing(url: str) -> EventBus:
    bus = EventBus(url)
    bus.listeners = ()
    bus._publishing._metrics = _Uncounted()  # type: ignore[assignment]
    return bus


def _not_sampled(url: str) -> EventBus:
    return EventBus(url, tracer=TracerProvider(sampler=ALWAYS_OFF).get_tracer("benchmark"))


def _spans(url: str) -> EventBus:
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(_Nowhere()))
    return EventBus(url, tracer=provider.get_tracer("benchmark"))


CONTENDERS: dict[str, Callable[[str], EventBus]] = {
    "nothing": _nothing,
    "metrics": EventBus,
    "not sampled": _not_sampled,
    "spans": _spans,
}


def main(
    events: Annotated[int, typer.Option(min=1000)] = 30_000,
    rounds: Annotated[int, typer.Option(min=1)] = 7,
) -> None:
    """Measure; within a round all take turns."""
    configure("console", level=50)
    with server() as url:
        costs = run(_measure(url, events, rounds))
    table = Table(title=f"Processor time of one event; {events:,} events, best of {rounds} rounds")
    for column in ("", "publish, µs", "of nothing", "consume, µs", "of nothing"):
        table.add_column(column, justify="right" if column else "left")
    for name in CONTENDERS:
        row = []
        for task in ("publish", "consume"):
            own, bare = costs[name, task], costs["nothing", task]
            row += [f"{min(own) * 1e6:.1f}", f"{min(own) / min(bare):.2f}x"]
        table.add_row(name, *row)
    Console(width=None if sys.stdout.isatty() else 100).print(table)


async def _measure(url: str, events: int, rounds: int) -> dict[tuple[str, str], list[float]]:
    costs: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        order = list(CONTENDERS.items())
        for name, open_bus in order[number % len(order) :] + order[: number % len(order)]:
            await flush(url)
            for task in (ours.publish, ours.consume):
                began = time.process_time()
                figure = await task(url, events, lambda _: None, open_bus)
                costs.setdefault((name, figure.task), []).append((time.process_time() - began) / events)
    return costs


if __name__ == "__main__":
    typer.run(main)
