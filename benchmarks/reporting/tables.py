"""A run as Markdown: what was to be reached, a table for each suite, who took part, what could not be measured."""

from collections.abc import Iterable, Sequence

from benchmarks.contenders.registry import OURS
from benchmarks.reporting.goals import judge
from benchmarks.running.outcome import Competitor, Metric, Outcome

NOTHING = "-"


def markdown(outcome: Outcome) -> str:
    """All tables, the must-reach lines first."""
    parts = [_origin(outcome), "### What was to be reached", goals(outcome)]
    for suite in suites_of(outcome):
        parts += [f"### {suite.capitalize()}", _suite(outcome, suite)]
    parts += ["### Who took part", _competitors(outcome)]
    if outcome.absences:
        parts += ["### What could not be measured", _absences(outcome)]
    return "\n\n".join(parts) + "\n"


def goals(outcome: Outcome) -> str:
    rows = [
        (v.goal.text, v.goal.wanted, "" if v.value is None else v.goal.show(v.value), _stressed(v.state))
        for v in judge(outcome)
    ]
    return _table(("", "wanted", "measured", ""), rows)


def suites_of(outcome: Outcome) -> list[str]:
    """The suites that measured something, in the order of the run."""
    measured = {reading.suite for reading in outcome.readings}
    return list(dict.fromkeys(metric.suite for metric in outcome.metrics if metric.suite in measured))


def shared(outcome: Outcome, suite: str) -> list[Metric]:
    """The metrics by which several contenders were measured."""
    return [metric for metric in _metrics(outcome, suite) if len(outcome.ranking(metric)) > 1]


def single(outcome: Outcome, suite: str) -> list[Metric]:
    """The metrics by which one contender alone was measured."""
    return [metric for metric in _metrics(outcome, suite) if len(outcome.ranking(metric)) == 1]


def show(value: float) -> str:
    """As many digits as mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _metrics(outcome: Outcome, suite: str) -> list[Metric]:
    return [metric for metric in outcome.metrics if metric.suite == suite]


def _origin(outcome: Outcome) -> str:
    where, server = outcome.environment, outcome.environment.server
    versions = ", ".join(f"{name} {version}" for name, version in where.versions.items() if version != "not installed")
    settings = ", ".join(f"{name} {_plain(value)}" for name, value in outcome.settings.items())
    return (
        f"Run of {outcome.date}, commit {where.commit}, on {where.machine['cores']} cores ({where.machine['cpu']}), "
        f"{where.machine['memory']}, {where.machine['kernel']}, load before {where.machine['loadBefore']}. "
        f"Server: {server['name']} {server['version']}, appendonly {server.get('appendonly', '?')}, "
        f"appendfsync {server.get('appendfsync', '?')}. {versions}. Settings: {settings}.\n\n"
        "Medians of the rounds; ± is half of the distance between the slowest and the fastest round."
    )


def _suite(outcome: Outcome, suite: str) -> str:
    parts = []
    if several := shared(outcome, suite):
        parts.append(_beside_each_other(outcome, several))
    if alone := single(outcome, suite):
        rows = [(_headed(metric), _cell(outcome, metric, outcome.ranking(metric)[0][0])) for metric in alone]
        name = outcome.ranking(alone[0])[0][0].name
        parts.append(_table((name, "median"), rows))
    return "\n\n".join(parts)


def _beside_each_other(outcome: Outcome, metrics: Sequence[Metric]) -> str:
    """A row for each contender, the best by the first metric first; columns for each metric, with the ratio to ours."""
    present: dict[str, Competitor] = {}
    for metric in metrics:
        present |= {entry.key: entry for entry, _ in outcome.ranking(metric) if entry.key not in present}
    header = ["", *(text for metric in metrics for text in (_headed(metric), "of eventbus"))]
    rows = []
    for entry in present.values():
        cells = [_stressed(entry.name) if entry.key == OURS else entry.name]
        for metric in metrics:
            cells += [_cell(outcome, metric, entry), _ratio(outcome, metric, entry)]
        rows.append(cells)
    return _table(header, rows)


def _headed(metric: Metric) -> str:
    return f"{metric.title}, {metric.unit}"


def _cell(outcome: Outcome, metric: Metric, entry: Competitor) -> str:
    values = outcome.values(metric.suite, metric.name, entry.key)
    median = outcome.median(metric.suite, metric.name, entry.key)
    if median is None:
        return NOTHING
    spread = (max(values) - min(values)) / 2 / median if len(values) > 1 and median else None
    return show(median) if spread is None else f"{show(median)} ±{spread:.0%}"


def _ratio(outcome: Outcome, metric: Metric, entry: Competitor) -> str:
    own = outcome.median(metric.suite, metric.name, OURS)
    other = outcome.median(metric.suite, metric.name, entry.key)
    return NOTHING if not own or other is None else f"{show(other / own)}x"


def _competitors(outcome: Outcome) -> str:
    rows = [
        (entry.name, entry.version, entry.language, entry.settings, entry.guarantees) for entry in outcome.competitors
    ]
    return _table(("", "version", "language", "settings", "what it guarantees as it was measured"), rows)


def _absences(outcome: Outcome) -> str:
    names = {entry.key: entry.name for entry in outcome.competitors}
    rows = [
        (names.get(gone.contender, gone.contender), gone.suite or "all", gone.kind, gone.reason)
        for gone in outcome.absences
    ]
    return _table(("", "suite", "", "why"), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines)


def _escaped(cell: str) -> str:
    """A reason may hold any text: it must stay one cell, and plain."""
    return " ".join(cell.split()).replace("|", "\\|").replace("<", "&lt;")


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _stressed(text: str) -> str:
    return f"**{text}**"
