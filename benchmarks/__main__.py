"""`python -m benchmarks`: publish and consume of one process, beside the raw client, in one run on one server."""

import json
import statistics
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import ours, raw
from benchmarks.measure import Figure, Tick
from benchmarks.servers import flush, machine, server
from eventbus.logs import configure
from eventbus.loop import run

Contender = Callable[[str, int, Tick], Awaitable[Figure]]

# In turn, so that a slow moment of the machine strikes all of them.
STEPS: list[tuple[str, Contender]] = [
    (f"publish, {raw.NAME}", raw.publish),
    (f"publish, {ours.NAME}", ours.publish),
    (f"consume, {raw.NAME}", raw.consume),
    (f"consume, {ours.NAME}", ours.consume),
]


def main(
    events: Annotated[int, typer.Option(min=1000, help="Events per step.")] = 100_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure, and show the median of the rounds and its ratio to the raw client."""
    configure("console", level=50)
    with server() as url:
        figures = run(_measure(url, events, rounds))
    if as_json:
        rows = [{"contender": f.contender, "task": f.task, "perSecond": round(f.per_second)} for f in figures]
        typer.echo(json.dumps({"machine": machine(), "events": events, "figures": rows}, indent=2))
    else:
        _show(figures, events, rounds)


async def _measure(url: str, events: int, rounds: int) -> list[Figure]:
    figures: list[Figure] = []
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for number in range(1, rounds + 1):
            await flush(url)
            for label, contender in STEPS:
                bar = progress.add_task(f"{number}/{rounds} {label}", total=events)
                figures.append(await contender(url, events, partial(progress.advance, bar)))
                progress.update(bar, completed=events)
    return figures


def _show(figures: list[Figure], events: int, rounds: int) -> None:
    table = Table(title=f"{events:,} events, median of {rounds} rounds, one process, {machine()}")
    for column in ("", "per second", "of the raw client", "slowest - fastest round"):
        table.add_column(column, justify="left" if not column else "right")
    for task in ("publish", "consume"):
        limit = _median(figures, task, raw.NAME)
        for contender in (raw.NAME, ours.NAME):
            rates = [f.per_second for f in figures if (f.task, f.contender) == (task, contender)]
            median = statistics.median(rates)
            spread = f"{min(rates):,.0f} - {max(rates):,.0f}"
            table.add_row(f"{task}, {contender}", f"{median:,.0f}", f"{median / limit:.2f}x", spread)
    Console(width=None if sys.stdout.isatty() else 110).print(table)


def _median(figures: list[Figure], task: str, contender: str) -> float:
    return statistics.median(f.per_second for f in figures if (f.task, f.contender) == (task, contender))


if __name__ == "__main__":
    typer.run(main)
