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
from types import ModuleType
from typing import IO

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


def start(
    module: str, *arguments: str, environment: Mapping[str, str], output: Path, folder: Path | None = None
) -> Process:
    """`python -m module arguments…`; what it prints is added to the file `output`."""
    server = get_context("forkserver")
    server.set_forkserver_preload([PRELOADED])
    told = (module, arguments, dict(environment), str(output), str(folder or Path.cwd()))
    process = server.Process(target=_become, args=told, name=module, daemon=False)
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")  # multiprocessing would import there what runs here
    try:
        process.start()
    finally:
        sys.modules["__main__"] = main
    return Process(process)


def _become(module: str, arguments: tuple[str, ...], environment: Mapping[str, str], output: str, folder: str) -> None:
    with Path(output).open("ab") as file:
        _point_at(file, sys.stdout, sys.stderr)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv[1:] = arguments
    sys.path.insert(0, folder)
    importlib.reload(importlib.import_module("eventbus.process.crash_points"))  # it has read another environment
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out


def _point_at(file: IO[bytes], *streams: IO[str]) -> None:
    for stream in streams:
        os.dup2(file.fileno(), stream.fileno())
