"""Tables and pictures, from a small run."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.contenders.registry import ROOT
from benchmarks.reporting import plots, report, tables
from benchmarks.running.outcome import Outcome
from tests.benchmarks.sample import sample
from tests.waiting import PATIENCE

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What is drawn of the sample: once, since it takes seconds of the processor."""
    return report.draw(sample(), tmp_path_factory.mktemp("drawn"))


def test_a_run_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    sample().save(tmp_path / "run.json")
    assert Outcome.load(tmp_path / "run.json") == sample()


def test_medians_count_and_the_rounds_spread_is_told() -> None:
    rows = [line for line in tables.markdown(sample()).splitlines() if line.startswith("| **eventbus** | 130,000")]
    assert rows == ["| **eventbus** | 130,000 ±3% | 1x | 78,000 ±3% | 1x | 41,000 ±3% | 1x |"]


def test_the_best_is_first_and_a_ratio_is_to_ours() -> None:
    lines = tables.markdown(sample()).splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("|  | Latency"))
    names = [line.split(" | ")[0].strip("| *") for line in lines[start + 2 : start + 7]]
    assert names == ["redis-py, raw", "eventbus", "bullmq", "saq", "arq"]
    assert "| 251 ±3% | 612x |" in lines[start + 6]


def test_who_is_missing_is_a_row_whatever_the_reason_looks_like() -> None:
    assert "| celery | all | unprepared | no index \\| no &lt;wheel> for it |" in tables.markdown(sample())


def test_what_was_to_be_reached_is_said_in_words() -> None:
    said = tables.goals(sample())
    assert "| Publish, of raw pipelines | ≥ 1.50x | 1.53x | **reached** |" in said
    assert "| … that descends from another | ≤ 232.0 B | 330.0 B | **not reached** |" in said
    assert "| POST /api/leads at 500/s, p99 | &lt; 50.0 ms |  | **not measured** |" in said


def test_a_picture_of_every_suite_in_both_formats(drawn: list[Path]) -> None:
    assert [path.stem for path in drawn] == ["throughput", "latency", "alone", "memory", "processes", "scale"]
    for path in drawn:
        assert ET.parse(path).getroot().tag.endswith("svg")
        assert path.with_suffix(".png").read_bytes().startswith(PNG)


def test_drawn_twice_it_is_the_same_file(drawn: list[Path], tmp_path: Path) -> None:
    again = report.draw(sample(), tmp_path)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in drawn]


def test_bars_are_sorted_and_ours_stands_out() -> None:
    _, consume, _ = plots.panels_of(sample(), "throughput")
    assert [bar.label for bar in consume.bars] == ["redis-py, raw", "eventbus", "bullmq", "arq", "saq"]
    assert [bar.label for bar in consume.bars if bar.colour == plots.COLOURS["eventbus"]] == ["eventbus"]
    p50 = plots.panels_of(sample(), "latency")[0]
    assert [bar.label for bar in p50.bars][:2] == ["redis-py, raw", "eventbus"]


def test_a_log_axis_only_where_bars_could_not_be_seen_otherwise() -> None:
    assert [panel.logarithmic for panel in plots.panels_of(sample(), "throughput")] == [False] * 3
    assert [panel.logarithmic for panel in plots.panels_of(sample(), "latency")] == [True] * 3


def test_what_one_alone_was_measured_by_stands_in_its_own_order() -> None:
    [panel] = plots.panels_of(sample(), "scale")
    assert [bar.value for bar in panel.bars] == [60_000, 59_000, 57_000]
    assert plots.panels_of(sample(), "recovery") == []  # one bar compares nothing


def test_the_page_keeps_what_stands_around_the_results(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.put_into(page, "new\n")
    assert page.read_text() == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"


def test_a_page_without_a_place_for_results_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("nothing here")
    with pytest.raises(ValueError, match="no place for results"):
        report.put_into(page, "new")
    assert page.read_text() == "nothing here"


def test_the_benchmarks_page_has_a_place_for_results() -> None:
    page = report.README.read_text(encoding="utf-8")
    assert page.count(report.BEGIN) == page.count(report.END) == 1


def test_the_command_draws_beside_the_file_and_fills_the_page(tmp_path: Path) -> None:
    results, page = tmp_path / "results" / "run.json", tmp_path / "README.md"
    sample().save(results)
    page.write_text(f"{report.BEGIN}{report.END}")
    command = [sys.executable, "-m", "benchmarks", "report", str(results)]
    subprocess.run([*command, "--readme", str(page)], cwd=ROOT, check=True, capture_output=True, timeout=PATIENCE)
    assert "![throughput, as in the table below](results/throughput.svg)" in page.read_text(encoding="utf-8")
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout
    assert "### What was to be reached" in printed
    assert "](throughput.svg)" in printed
