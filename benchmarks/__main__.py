"""`python -m benchmarks`: this project, the raw client and the peers, in one run on one server. benchmarks/README.md
tells how, and what the numbers are worth."""

import asyncio
import sys
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from benchmarks.contenders import registry as contenders
from benchmarks.contenders.registry import Contender
from benchmarks.reporting import report, tables
from benchmarks.running import provenance, runner
from benchmarks.running.outcome import LATEST, PARTIAL, Absence, Outcome
from benchmarks.running.screen import Screen
from benchmarks.running.servers import server
from benchmarks.suites import Plan, Suite, suites
from eventbus.process.logs import configure

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)
QUICK_PEERS = "bullmq"


@app.callback(invoke_without_command=True)
def measure(
    context: typer.Context,
    *,
    suite: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(suites())}; all by default.")] = None,
    peers: Annotated[str, typer.Option(help="all, none, or names with commas.")] = "all",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="That a step of throughput shall take.")] = 4.0,
    quick: Annotated[bool, typer.Option(help="Two minutes, one round, and no peer but BullMQ.")] = False,
    out: Annotated[Path | None, typer.Option(help="Results; by default results/latest.json of a whole run.")] = None,
) -> None:
    """Measure, keep the results as JSON, and draw them if it was a whole run."""
    if context.invoked_subcommand is not None:
        return
    configure("console", level=50)
    picked = _picked(suite, quick)
    whole = not (suite or quick)
    path = out or (LATEST if whole else PARTIAL)
    present, absent = _gather("quick" if quick and peers == "all" else peers)
    plan = Plan(present, 1 if quick else rounds, min(seconds, 1.0) if quick else seconds, quick)
    with server() as url:
        outcome = asyncio.run(_measure(picked, plan, absent, url, path))
    Console(width=None if sys.stdout.isatty() else 160).print(Markdown(tables.markdown(outcome)))
    Console(stderr=True).print(f"results: {path}", markup=False)
    if whole:
        draw(path)


@app.command("report")
def draw(
    results: Annotated[Path, typer.Argument(help="What a run has left.")] = LATEST,
    readme: Annotated[
        Path | None,
        typer.Option(help="The page that gets the tables; by default that of the benchmarks, for the last whole run."),
    ] = None,
) -> None:
    """Draw a run: pictures beside its JSON, tables into the page or on stdout."""
    outcome = Outcome.load(results)
    try:
        pictures = report.draw(outcome, results.parent)
    except ModuleNotFoundError as error:
        raise typer.BadParameter(f"{error}: pip install matplotlib, it is of the dependency group `bench`") from None
    page = readme or (report.README if results == LATEST else None)
    said = report.text(outcome, pictures, page.parent if page else results.parent)
    if page is None:
        typer.echo(said)
    else:
        report.put_into(page, said)
        Console(stderr=True).print(f"drawn: {results.parent}/*.svg, *.png; tables: {page}", markup=False)


async def _measure(picked: list[Suite], plan: Plan, absent: list[Absence], url: str, path: Path) -> Outcome:
    outcome = Outcome(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=await provenance.environment(url),
        settings={
            "rounds": plan.rounds,
            "seconds": plan.seconds,
            "quick": plan.quick,
            "suites": [suite.name for suite in picked],
        },
        competitors=[contender.about for contender in plan.contenders],
        absences=absent,
    )
    steps = sum(runner.count_rounds(suite, plan) * len(suite.steps(plan)) for suite in picked)
    with Screen(steps) as screen:
        return await runner.run(picked, plan, url, outcome=outcome, watcher=screen, keep=lambda found: found.save(path))


def _picked(names: list[str] | None, quick: bool) -> list[Suite]:
    known = suites()
    if unknown := sorted(set(names or ()) - set(known)):
        raise typer.BadParameter(f"no such suite: {', '.join(unknown)}. There are: {', '.join(known)}")
    return [found for name, found in known.items() if (name in names if names else found.quick or not quick)]


def _gather(choice: str) -> tuple[list[Contender], list[Absence]]:
    """Who takes part, ours first; and who does not, and why. Environments of peers are prepared here."""
    present, absent = contenders.own(), list[Absence]()
    if choice == "none":
        return present, absent
    where = contenders.environments()
    known = where.PEERS
    try:
        names = [QUICK_PEERS] if choice == "quick" else contenders.chosen(choice, known)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--peers") from None
    console = Console(stderr=True)
    for name in names:
        if choice == "quick" and not (name in known and where.prepared(name)):
            absent.append(Absence(contender=name, kind="unprepared", reason="a quick run prepares no environments"))
            continue
        with console.status(f"preparing {name}") if console.is_terminal else nullcontext():
            found = contenders.peer(name, where)
        if isinstance(found, Contender):
            present.append(found)
        else:
            absent.append(found)
            console.print(f"{name}: {found.reason}", style="yellow", markup=False)
    return present, absent


if __name__ == "__main__":
    app()
