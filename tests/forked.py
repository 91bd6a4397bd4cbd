"""Processes of `python -m …` that have been started already: forked from one that has imported what they need.

Each is a process of its own, with its own arguments, environment, folder and output, and is killed, frozen and ended by
real signals. What it does without is the second of processor time that an interpreter takes for its imports; the tests
start hundreds. Who tests how a program starts, starts it as users do.
"""

import atexit
import importlib
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing import context, get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import NamedTuple

from tests.waiting import PATIENCE

PRELOADED = "tests.preloaded"


class Process:
    """As much of subprocess.Popen as is needed; `returncode` is None until somebody has looked."""

    def __init__(self, process: context.ForkServerProcess) -> None:
        self._process = process
        assert process.pid is not None, "it has been started"
        self.pid = process.pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, minus the signal's number if it was killed; None while it runs."""
        if self.returncode is None:
            self.returncode = self._process.exitcode
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Files(NamedTuple):
    """Of a process: where it prints to, at the end of what is there, and what it reads."""

    output: Path
    errors: Path | None = None  # else they go to the output
    answers: Path | None = None  # else there is nothing to read

    def open(self) -> None:
        """In this process: standard output, error and input."""
        for path, stream in ((self.output, sys.stdout), (self.errors or self.output, sys.stderr)):
            with path.open("ab") as file:
                os.dup2(file.fileno(), stream.fileno())
        if self.answers is not None:
            with self.answers.open("rb") as file:
                os.dup2(file.fileno(), 0)
            sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - multiprocessing has closed the other


def run(
    module: str, *arguments: str, environment: Mapping[str, str], answer: str = "", folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Start one, wait for its end, and read what it has printed."""
    with TemporaryDirectory() as place:
        files = Files(*(Path(place, name) for name in ("output", "errors", "answers")))
        assert files.errors is not None
        assert files.answers is not None
        files.answers.write_text(answer, encoding="utf-8")
        process = _start(module, arguments, environment, files, folder)
        try:
            code = process.wait(PATIENCE)
        except BaseException:
            process.kill()
            raise
        printed, complained = (path.read_text(encoding="utf-8") for path in (files.output, files.errors))
    return subprocess.CompletedProcess((module, *arguments), code, printed, complained)


def start(
    module: str, *arguments: str, environment: Mapping[str, str], output: Path, folder: Path | None = None
) -> Process:
    """`python -m module arguments…`; what it prints is added to the file `output`."""
    return _start(module, arguments, environment, Files(output), folder)


def _start(
    module: str, arguments: tuple[str, ...], environment: Mapping[str, str], files: Files, folder: Path | None
) -> Process:
    server = get_context("forkserver")
    server.set_forkserver_preload([PRELOADED])
    told = (module, arguments, dict(environment), files, str(folder or Path.cwd()))
    process = server.Process(target=_become, args=told, name=module, daemon=False)
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")  # multiprocessing would import there what runs here
    try:
        process.start()
    finally:
        sys.modules["__main__"] = main
    return Process(process)


def _become(module: str, arguments: tuple[str, ...], environment: Mapping[str, str], files: Files, folder: str) -> None:
    files.open()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv[1:] = arguments
    sys.path[:0] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    importlib.reload(importlib.import_module("eventbus.process.crash_points"))  # it has read another environment
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out
