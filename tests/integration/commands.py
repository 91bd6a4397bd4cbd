"""The `eventbus` command as an operator runs it: arguments, environment, exit code, screen."""

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

from eventbus.cli import build
from eventbus.cli.screen import report
from eventbus.errors import EventBusError
from tests import forked
from tests.waiting import PATIENCE

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("EVENTBUS_", "REDIS_", "DATABASE_"))}
SCREEN = {"COLUMNS": "80", "NO_COLOR": "1"}

Run = subprocess.CompletedProcess[str]


def eventbus(*arguments: str, answer: str = "", **environment: str) -> Run:
    """In a process of its own, which is not started anew: see tests.forked."""
    return forked.run("eventbus.cli", *arguments, environment={**CLEAN, **SCREEN, **environment}, answer=answer)


def eventbus_anew(*arguments: str, **environment: str) -> Run:
    """In a process as users start it, which has imported nothing but what the command asks for."""
    return subprocess.run(
        [sys.executable, "-m", "eventbus.cli", *arguments],
        env={**CLEAN, **SCREEN, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def eventbus_here(*arguments: str, answer: str = "", **environment: str) -> Run:
    """The same command in this process, which is ten times as quick; on a loop of its own, in a thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_run, arguments, answer, {**CLEAN, **SCREEN, **environment}).result(60)


def _run(arguments: tuple[str, ...], answer: str, environment: Mapping[str, str]) -> Run:
    code, out, err = 0, io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, environment, clear=True),
        patch.object(sys, "stdin", io.StringIO(answer)),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            build(arguments[0])(list(arguments))
        except EventBusError as error:
            code = report(error)
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def assert_fits(run: Run, width: int = 80, lines: int = 24) -> None:
    """On one screen, and no password on it."""
    printed = run.stdout.splitlines()
    assert max(map(len, printed)) <= width, run.stdout
    assert len(printed) <= lines, run.stdout
    assert "***" in run.stdout or "redis://" not in run.stdout
