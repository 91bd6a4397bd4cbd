"""A run as pictures: for each suite an SVG and a PNG, bars by contender, sorted, ours in colour.

The background is transparent, and the tones can be read on white and on black alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.contenders.registry import OURS, RAW
from benchmarks.reporting.tables import shared, show, single, suites_of
from benchmarks.running.outcome import Metric, Outcome

INK = "#7d8288"  # 4:1 against white, and 5:1 against GitHub's dark
COLOURS = {OURS: "#e8590c", RAW: "#a9afb6"}
OTHERS = "#5b8dbf"
LOG_FROM = 300  # the largest value divided by the smallest, above which the shortest bar could not be seen
WIDTH, BAR, HEAD = 8.0, 0.30, 0.75  # inches
DOTS = 160  # per inch of the PNG


@dataclass(frozen=True)
class Bar:
    label: str
    value: float
    colour: str
    bold: bool = False


@dataclass(frozen=True)
class Panel:
    title: str
    bars: Sequence[Bar]

    @property
    def logarithmic(self) -> bool:
        values = [bar.value for bar in self.bars if bar.value > 0]
        return bool(values) and max(values) / min(values) > LOG_FROM


def draw(outcome: Outcome, folder: Path) -> list[Path]:
    """Write the pictures of every suite that has something to compare; returns the SVGs."""
    written = []
    for suite in suites_of(outcome):
        if panels := panels_of(outcome, suite):
            path = folder / f"{suite}.svg"
            _save(panels, path)
            written.append(path)
    return written


def panels_of(outcome: Outcome, suite: str) -> list[Panel]:
    """A panel for each metric of several contenders; then, for each unit, one of the metrics of one contender alone."""
    panels = [_compared(outcome, metric) for metric in shared(outcome, suite)]
    alone = single(outcome, suite)
    for unit in dict.fromkeys(metric.unit for metric in alone):
        same = [metric for metric in alone if metric.unit == unit]
        if len(same) > 1:
            panels.append(_own(outcome, same))
    return panels


def _compared(outcome: Outcome, metric: Metric) -> Panel:
    bars = [
        Bar(entry.name, value, COLOURS.get(entry.key, OTHERS), bold=entry.key == OURS)
        for entry, value in outcome.ranking(metric)
    ]
    return Panel(f"{metric.title} ({metric.unit}, {metric.better} is better)", bars)


def _own(outcome: Outcome, metrics: Sequence[Metric]) -> Panel:
    name = outcome.ranking(metrics[0])[0][0].name
    bars = [Bar(metric.title, outcome.ranking(metric)[0][1], COLOURS[OURS]) for metric in metrics]
    return Panel(f"{name} alone ({metrics[0].unit}, {metrics[0].better} is better)", bars)


def _save(panels: Sequence[Panel], path: Path) -> None:
    heights = [HEAD + BAR * len(panel.bars) for panel in panels]
    with mpl.rc_context(
        {
            "svg.hashsalt": path.stem,
            "font.size": 9.5,
            "text.color": INK,
            "axes.edgecolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    ):
        figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
        parts = figure.subfigures(len(panels), 1, squeeze=False, height_ratios=heights)
        for panel, part in zip(panels, parts[:, 0], strict=True):
            title = f"{panel.title}, log scale" if panel.logarithmic else panel.title
            part.suptitle(title, x=0.01, ha="left", fontsize="medium", fontweight="bold")
            _draw(panel, part.subplots())
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, transparent=True, metadata={"Date": None})
        figure.savefig(path.with_suffix(".png"), transparent=True, dpi=DOTS)


def _draw(panel: Panel, axes: Axes) -> None:
    places = range(len(panel.bars))
    values = [bar.value for bar in panel.bars]
    drawn = axes.barh(places, values, color=[bar.colour for bar in panel.bars], height=0.72)
    axes.bar_label(drawn, labels=[show(value) for value in values], padding=4)
    axes.set_yticks(places, [bar.label for bar in panel.bars])
    for bar, text in zip(panel.bars, axes.get_yticklabels(), strict=True):
        text.set_fontweight("bold" if bar.bold else "normal")
        if bar.bold:
            text.set_color(bar.colour)
    axes.invert_yaxis()
    if panel.logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(min(value for value in values if value > 0) / 3, max(values) * 3)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    else:
        axes.set_xlim(0, max(values, default=1) * 1.14)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(bottom=False, left=False, labelbottom=panel.logarithmic)
