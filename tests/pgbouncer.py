"""PgBouncer, as people put it in front of PostgreSQL."""

import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from eventbus.embedded import ports
from eventbus.embedded.account import Account
from tests.waiting import PATIENCE

_DEFAULTS = {"listen_addr": "127.0.0.1", "auth_type": "any", "unix_socket_dir": "", "max_client_conn": "200"}


class PgBouncer:
    """Runs as the embedded PostgreSQL does, since it refuses to run as root. `options`: its settings, such as
    pool_mode; what is not said is as it is packed."""

    def __init__(self, folder: Path, target: str, options: Mapping[str, str]) -> None:
        binary = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
        if binary is None:
            pytest.fail("pgbouncer is not on PATH: see .ci/run")
        self._binary = binary
        self._account = Account.unprivileged()
        self._port = ports.free_port()
        self._config = folder / "pgbouncer.ini"
        self._log = folder / "pgbouncer.log"
        self._process: subprocess.Popen[bytes] | None = None
        server = urlsplit(target)
        login = f"host={server.hostname} port={server.port} user={server.username} password={server.password}"
        settings = {**_DEFAULTS, "listen_port": str(self._port), **options}
        lines = [f"{name} = {value}" for name, value in settings.items()]
        self._config.write_text("\n".join(["[databases]", f"* = {login}", "[pgbouncer]", *lines, ""]), encoding="ascii")
        self._account.give(self._config)
        self.url = server._replace(netloc=f"anybody@127.0.0.1:{self._port}").geturl()

    def start(self) -> None:
        """Returns when clients can connect."""
        with self._log.open("ab") as log, self._config.open("rb") as config:
            self._process = subprocess.Popen(
                [self._binary, f"/proc/self/fd/{config.fileno()}"],  # the folder may be out of that user's reach
                pass_fds=[config.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                user=self._account.uid,
                group=self._account.gid,
                extra_groups=self._account.groups,
            )
        deadline = time.monotonic() + PATIENCE
        while ports.is_free(self._port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"pgbouncer did not start: {self._log.read_text()[-2000:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        """At once: clients are cut off."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE)
            self._process = None


@contextmanager
def pgbouncer(folder: Path, target: str, **options: str) -> Iterator[PgBouncer]:
    bouncer = PgBouncer(folder, target, options)
    bouncer.start()
    try:
        yield bouncer
    finally:
        bouncer.stop()
