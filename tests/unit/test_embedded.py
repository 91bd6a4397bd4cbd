"""The parts of `eventbus.embedded` that need no server."""

import importlib.util
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eventbus.embedded import account, ports, processes
from eventbus.embedded.directory import DataDirectory
from eventbus.embedded.postgres import postgres_package
from eventbus.embedded.valkey import valkey_binary
from eventbus.errors import ConfigurationError


def until(condition: Callable[[], bool], timeout: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def is_alive(pid: int) -> bool:
    found = processes.table().get(pid)
    return found is not None and not found.zombie


class TestDataDirectory:
    def test_has_one_owner(self, tmp_path: Path) -> None:
        first, second = DataDirectory(tmp_path / "d"), DataDirectory(tmp_path / "d")
        first.acquire()
        first.acquire()
        with pytest.raises(ConfigurationError, match=rf"in use by process {os.getpid()}\b"):
            second.acquire()
        first.release()
        second.acquire()
        second.release()

    def test_is_private(self, tmp_path: Path) -> None:
        directory = DataDirectory(tmp_path / "deep" / "er")
        directory.acquire()
        directory.remember("password", "secret")
        directory.release()
        assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in directory.path.iterdir()} == {0o600}

    def test_recalls_what_was_remembered_last(self, tmp_path: Path) -> None:
        directory = DataDirectory(tmp_path)
        assert directory.recall("port") is None
        directory.remember("port", "1")
        directory.remember("port", "2")
        assert DataDirectory(tmp_path).recall("port") == "2"

    def test_starts_a_large_log_anew(self, tmp_path: Path) -> None:
        directory = DataDirectory(tmp_path)
        directory.log.write_bytes(b"old\n" * 300_000)
        os.close(directory.open_log())
        assert directory.log.read_bytes() == b""
        assert (tmp_path / "server.log.1").read_bytes().startswith(b"old")

    def test_shows_the_end_of_the_log(self, tmp_path: Path) -> None:
        directory = DataDirectory(tmp_path)
        assert directory.log_tail() == "(nothing logged)"
        directory.log.write_text("one\ntwo\nthree\n")
        assert directory.log_tail(2) == "  two\n  three"


class TestPorts:
    def test_a_listener_keeps_its_port(self) -> None:
        with socket.create_server((ports.LOOPBACK, 0)) as listener:
            port = listener.getsockname()[1]
            assert not ports.is_free(port)
            assert not ports.wait_until_free(port, timeout=0.1)
        assert ports.wait_until_free(port, timeout=1.0)

    def test_free_ports_are_no_ephemeral_ones(self) -> None:
        assert ports.free_port() < 32_768


@pytest.fixture
def family() -> Iterator[subprocess.Popen[bytes]]:
    """A shell with a child."""
    with subprocess.Popen(["/bin/sh", "-c", "sleep 60 & wait"], start_new_session=True) as shell:
        assert until(lambda: len(processes.descendants(shell.pid)) == 1)
        yield shell
        shell.kill()


class TestProcesses:
    def test_the_table_knows_this_process(self) -> None:
        me = processes.table()[os.getpid()]
        assert me.parent == os.getppid()
        assert "python" in me.command

    def test_the_table_can_be_read_with_ps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        listing = "    1     0 Ss   /sbin/init splash\n   42     1 Z    [sh] <defunct>\n    7     1 S\n"
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, listing))
        assert processes._from_ps() == [
            processes.Process(1, 0, state="S", command="/sbin/init splash"),
            processes.Process(42, 1, state="Z", command="[sh] <defunct>"),
        ]

    def test_kill_takes_the_whole_family(self, family: subprocess.Popen[bytes]) -> None:
        members = [family.pid, *processes.descendants(family.pid)]
        processes.kill_tree(family.pid)
        assert not any(is_alive(pid) for pid in members)

    def test_pause_and_resume_reach_the_whole_family(self, family: subprocess.Popen[bytes]) -> None:
        members = [family.pid, *processes.descendants(family.pid)]

        def stopped() -> list[bool]:
            return [processes.table()[pid].state == "T" for pid in members]

        processes.pause_tree(family.pid)
        assert until(lambda: all(stopped()))
        processes.resume_tree(family.pid)
        assert until(lambda: not any(stopped()))

    def test_signals_to_the_dead_are_no_error(self, family: subprocess.Popen[bytes]) -> None:
        family.kill()
        family.wait()
        processes.send(family.pid, signal.SIGTERM)


class TestWatchdog:
    SCRIPT = """
import signal, subprocess, sys, time
from eventbus.embedded.processes import Watchdog
sleeper = subprocess.Popen(["sleep", "60"], start_new_session=True)
watchdog = Watchdog(sleeper.pid, signal.SIGTERM)
print(sleeper.pid, flush=True)
time.sleep(60)
"""

    def test_ends_the_server_of_a_killed_owner(self) -> None:
        with subprocess.Popen([sys.executable, "-c", self.SCRIPT], stdout=subprocess.PIPE) as owner:
            assert owner.stdout is not None
            sleeper = int(owner.stdout.readline())
            assert is_alive(sleeper)
            owner.kill()
        assert until(lambda: not is_alive(sleeper))

    def test_dismissed_does_nothing(self, family: subprocess.Popen[bytes]) -> None:
        processes.Watchdog(family.pid, signal.SIGTERM).dismiss()
        with pytest.raises(subprocess.TimeoutExpired):
            family.wait(0.2)


class TestStaging:
    @pytest.fixture
    def package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
        (tmp_path / "tmp").mkdir()
        for path, mode in (
            ("package/bin/server", 0o700),
            ("package/share/words", 0o600),
            ("package.libs/lib.so", 0o600),
        ):
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(path)
            file.chmod(mode)
        return tmp_path / "package"

    def test_the_copy_is_for_everybody(self, package: Path) -> None:
        copy = account.staged(package)
        assert copy.parent.parent == package.parent / "tmp"
        modes = {path: stat.S_IMODE((copy / path).stat().st_mode) for path in ("bin", "bin/server", "share/words")}
        assert modes == {"bin": 0o755, "bin/server": 0o755, "share/words": 0o644}
        assert (copy.parent / "package.libs" / "lib.so").is_file()

    def test_is_made_once(self, package: Path) -> None:
        (account.staged(package) / "mark").symlink_to("nowhere")
        (package / "mark").symlink_to("nowhere")
        assert (account.staged(package) / "mark").is_symlink()

    def test_what_lost_a_file_is_made_anew(self, package: Path) -> None:
        (account.staged(package) / "share" / "words").unlink()
        assert (account.staged(package) / "share" / "words").is_file()
        assert len(list((package.parent / "tmp").iterdir())) == 1

    def test_what_others_can_write_to_is_not_trusted(self, package: Path) -> None:
        account.staged(package).parent.chmod(0o777)
        with pytest.raises(ConfigurationError, match="belongs to somebody else"):
            account.staged(package)


@pytest.mark.parametrize("locate", [valkey_binary, postgres_package])
def test_missing_wheels_are_told(locate: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'eventbus\[embedded\]'"):
        locate()
