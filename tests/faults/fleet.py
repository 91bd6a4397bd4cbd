"""Worker processes that are started, killed and started again."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests import forked
from tests.forked import Process
from tests.lines import whole_lines
from tests.waiting import PATIENCE

Running = Process | subprocess.Popen[bytes]


class Fleet:
    """Processes of one module with one environment, each with a file for its output."""

    def __init__(self, folder: Path, module: str, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._module = module
        self._environment = {**os.environ, **environment}
        self._started = 0
        self.processes: list[Running] = []

    def start(self, *arguments: str, crash: str = "", skew: float = 0.0) -> Running:
        """One more; with `crash` it dies at that point, see eventbus.process.crash_points, with `skew` its clock is
        off by so many seconds, see tests.faults.skewed."""
        self._started += 1
        environment = {**self._environment, **({"EVENTBUS_CRASH": crash} if crash else {}), "FAULTS_SKEW": str(skew)}
        output = self._folder / f"process-{self._started}.log"
        if skew:  # what has been imported already has seen the right time
            command = [sys.executable, "-m", "tests.faults.skewed", *arguments]
            with output.open("wb") as file:
                process: Running = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
        else:
            process = forked.start(self._module, *arguments, environment=environment, output=output)
        self.processes.append(process)
        return process

    def kill(self, process: Running) -> None:
        """SIGKILL, and wait until it is gone."""
        process.kill()
        process.wait()
        self.processes.remove(process)

    def terminate(self, process: Running, timeout: float = PATIENCE) -> int:
        """SIGTERM; returns the exit code."""
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout)
        self.processes.remove(process)
        return code

    def replace_dead(self, *arguments: str) -> int:
        """Start a new process for each that has died, as a supervisor would; returns how many were killed, or
        ended themselves in the middle of work, and not by an exception: on a busy machine one may find a server too
        slow when it starts."""
        dead = [process for process in self.processes if process.poll() is not None]
        for process in dead:
            self.processes.remove(process)
            self.start(*arguments)
        return sum(process.returncode != 1 for process in dead)

    def end(self) -> None:
        for process in list(self.processes):
            self.kill(process)

    def log(self) -> str:
        """What all processes have printed."""
        return "\n".join(line for path in sorted(self._folder.glob("process-*.log")) for line in whole_lines(path))
