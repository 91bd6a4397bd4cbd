"""What the embedded servers have in common: one process, one data directory, one URL."""

import os
import secrets
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import ClassVar, Self

from eventbus.embedded import ports, processes
from eventbus.embedded.directory import DataDirectory
from eventbus.errors import ConfigurationError, EventBusError


class EmbeddedServer(ABC):
    """A server of one's own. All calls block, each for a bounded time: use `asyncio.to_thread` inside a loop.

    `start` and `stop` may alternate as often as one likes; port, password and data stay. `kill`, `pause` and `resume`
    are the faults of a test: the directory stays owned, and `start` after `kill` is the restart.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        *,
        port: int | None = None,
        options: Mapping[str, str] | None = None,
        start_timeout: float = 60.0,
    ) -> None:
        """`port`: None chooses a free one, and the same again for this directory as long as nobody else took it.
        `options`: settings of the server, in its own words, over the defaults; they may change between starts.
        """
        self.directory = DataDirectory(data_dir)
        self.options = dict(options or {})
        self._fixed_port = port
        self._start_timeout = start_timeout
        self._password: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: processes.Watchdog | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect, password included. Known from the first start on."""

    @property
    def port(self) -> int:
        if self._fixed_port is None:
            raise EventBusError(f"{self.name} was not started yet, so its port is not known")
        return self._fixed_port

    @property
    def password(self) -> str:
        if self._password is None:
            raise EventBusError(f"{self.name} was not started yet, so its password is not known")
        return self._password

    @property
    def pid(self) -> int:
        if self._process is None or not self.running:
            raise EventBusError(f"{self.name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Run until ready for clients; no-op when running. What a former owner left running here is ended first.

        Raises ConfigurationError if the directory or the port is somebody else's, EventBusError with the last lines
        of the log if the server does not come up.
        """
        if self.running:
            return self
        self._reap()
        self.directory.acquire()
        try:
            self._end_leftover()
            self._password = self._recall_password()
            self._fixed_port = self._choose_port()
            self._prepare()
            self._process = self._launch()
            self._watchdog = processes.Watchdog(self._process.pid, self.stop_signal)
            self._wait_until_ready()
        except BaseException:
            self.kill()
            self.directory.release()
            raise
        return self

    def stop(self, timeout: float = 30.0) -> None:
        """Shut down in good order, by force after `timeout` seconds, and give the directory back."""
        if self._process is not None and self.running:
            self._process.send_signal(self.stop_signal)
            processes.resume_tree(self._process.pid)  # a paused server has to run to stop
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        self.kill()
        self.directory.release()

    def kill(self) -> None:
        """SIGKILL, every process of the server; returns when they are gone."""
        if self._process is not None and self.running:
            processes.kill_tree(self._process.pid)
        self._reap()

    def pause(self) -> None:
        """SIGSTOP, every process of the server: its sockets still take connections, and nothing answers."""
        processes.pause_tree(self.pid)

    def resume(self) -> None:
        processes.resume_tree(self.pid)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @abstractmethod
    def _prepare(self) -> None:
        """Bring the directory in order for the process to come: configuration, first-time set-up."""

    @abstractmethod
    def _launch(self) -> subprocess.Popen[bytes]:
        """Start the process, in a session of its own, its output in the log."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether the launched process, and no other, answers clients."""

    @abstractmethod
    def _owns(self, process: processes.Process) -> bool:
        """Whether this is the main process of a server like this one on this very directory."""

    def _end_leftover(self) -> None:
        # The watchdog of a killed owner may still be at it, or may have been killed too. SIGKILL, because
        # both servers recover from it at once, while an orderly end can take as long as it likes.
        for process in processes.table().values():
            if not process.zombie and self._owns(process):
                processes.kill_tree(process.pid)

    def _recall_password(self) -> str:
        password = self.directory.recall("password")
        if password is None:
            password = secrets.token_hex(24)
            self.directory.remember("password", password)
        return password

    def _choose_port(self) -> int:
        if self._fixed_port is not None:  # its URL was given away: no other will do
            if not ports.wait_until_free(self._fixed_port, timeout=5.0):
                raise ConfigurationError(f"{self.name}: port {self._fixed_port} is taken by another process")
            return self._fixed_port
        remembered = self.directory.recall("port") or ""
        if remembered.isdecimal() and ports.is_free(int(remembered)):
            return int(remembered)
        port = ports.free_port()
        self.directory.remember("port", str(port))
        return port

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self._start_timeout
        while self.running:
            if self._is_ready():
                return
            if time.monotonic() > deadline:
                raise self._failure(f"was not ready within {self._start_timeout:g} s")
            time.sleep(0.01)
        raise self._failure(f"ended while starting (exit code {self._process.returncode if self._process else '?'})")

    def _failure(self, what: str) -> EventBusError:
        return EventBusError(f"{self.name} {what}. Last lines of {self.directory.log}:\n{self.directory.log_tail()}")

    def _reap(self) -> None:
        if self._watchdog is not None:
            self._watchdog.dismiss()
            self._watchdog = None
        if self._process is not None:
            self._process.wait()
            self._process = None
