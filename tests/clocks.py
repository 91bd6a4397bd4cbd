"""`python -m tests.clocks`: each test that reads a clock, fifty times, beside processes that keep all cores busy.

A test whose outcome depends on how quick the machine is costs whoever meets it a day. This finds it before: all tests
that read a clock, themselves or through a function of their file, are repeated where the machine is slowest.
"""

import ast
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import pytest
import typer

CLOCKS = {
    "time",
    "time_ns",
    "monotonic",
    "monotonic_ns",
    "perf_counter",
    "process_time",
    "now",
    "Stopwatch",
    "clock_gettime",
}
FOLDER = Path(__file__).parent
TIMES = "CLOCKS_TIMES"


def main(
    times: Annotated[int, typer.Option(min=1, help="How often each runs.")] = 50,
    busy: Annotated[int, typer.Option(min=0, help="Processes that only compute.")] = os.cpu_count() or 1,
    processes: Annotated[int, typer.Option(min=1, help="Tests at a time.")] = 4,
    only: Annotated[str, typer.Option(help="Those alone whose id holds this text.")] = "",
    names: Annotated[bool, typer.Option("--names", help="Show which they are, and run none.")] = False,
) -> None:
    """Exit 1 if one has failed, even once."""
    found = [test for test in clock_readers() if only in test]
    if names or not found:
        print("\n".join(found), len(found), sep="\n")
        return
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(processes), "--dist", "worksteal", "-p", __spec__.name]
    with computing(busy):
        code = subprocess.run([*command, *found], env={**os.environ, TIMES: str(times)}, check=False).returncode
    print(f"{len(found)} tests that read a clock, {times} times beside {busy} busy processes: exit code {code}")
    raise typer.Exit(code)


# What follows is loaded into pytest, too.
@pytest.fixture
def repetition() -> None:
    """So that there is something to give each test several times."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.fixturenames.append(repetition.__name__)
    metafunc.parametrize(repetition.__name__, range(int(os.environ[TIMES])), indirect=True)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell of a failure at once: a run may take an hour, and may be ended before it has a summary."""
    if report.failed:
        print(f"\nFAILED {report.nodeid}: {str(report.longrepr)[-400:]}", flush=True)


def clock_readers() -> Iterator[str]:
    """The ids of the tests that read a clock, without their parameters."""
    for path in sorted(FOLDER.rglob("test_*.py")):
        functions = dict(_functions(ast.parse(path.read_text(encoding="utf-8")), ""))
        reading = {name for name, node in functions.items() if CLOCKS & _called(node)}
        while more := {name for name, node in functions.items() if reading & _called(node)} - reading:
            reading |= more
        for name in functions:
            if name in reading and name.rpartition("::")[2].startswith("test_"):
                yield f"{path.relative_to(FOLDER.parent)}::{name}"


def _functions(tree: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{prefix}{node.name}::")


def _called(function: ast.AST) -> set[str]:
    """Names of what it calls, and of the fixtures that it asks for."""
    called: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            called.add(node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", ""))
        elif isinstance(node, ast.arg):
            called.add(node.arg)
    return called


@contextmanager
def computing(count: int) -> Iterator[None]:
    """So many processes that compute for as long as the block takes."""
    workers = [multiprocessing.Process(target=_compute, daemon=True) for _ in range(count)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.kill()
            worker.join()


def _compute() -> None:
    while True:
        sum(range(100_000))


if __name__ == "__main__":
    typer.run(main)
