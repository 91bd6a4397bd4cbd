"""Processes of this machine: a table of them, signals for whole families, and an end that follows their owner's."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from eventbus.errors import EventBusError

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    parent: int
    state: str
    """One letter, as ps prints it: T is stopped, Z a zombie."""
    command: str
    """The arguments, joined by blanks."""

    @property
    def zombie(self) -> bool:
        return self.state in "ZX"


def table() -> dict[int, Process]:
    """All processes that can be seen, by pid."""
    found = _from_proc() if (_PROC / "self" / "stat").exists() else _from_ps()
    return {process.pid: process for process in found}


def _from_proc() -> list[Process]:
    found = []
    for entry in os.listdir(_PROC):  # noqa: PTH208 - Path objects for a thousand names are slow, and most are dropped
        if not entry.isdigit():
            continue
        try:
            stat = (_PROC / entry / "stat").read_bytes()
            arguments = (_PROC / entry / "cmdline").read_bytes()
        except OSError:  # gone meanwhile
            continue
        state, parent = stat[stat.rindex(b")") + 1 :].split(None, 2)[:2]  # the name before it may hold anything
        command = arguments.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
        found.append(Process(int(entry), int(parent), state.decode(), command))
    return found


def _from_ps() -> list[Process]:
    listing = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,state=,command="],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=True,
        timeout=30,
    )
    rows = (line.split(None, 3) for line in listing.stdout.splitlines())
    return [Process(int(row[0]), int(row[1]), row[2][0], row[3]) for row in rows if len(row) > 3]


def descendants(root: int) -> list[int]:
    """Pids of everything below `root`, parents before their children."""
    children: dict[int, list[int]] = {}
    for process in table().values():
        children.setdefault(process.parent, []).append(process.pid)
    family = list(children.get(root, ()))
    for pid in family:  # grows while it is read
        family.extend(children.get(pid, ()))
    return family


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process that may be gone already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def pause_tree(root: int) -> None:
    send(root, signal.SIGSTOP)  # first: a stopped process forks no more
    for pid in descendants(root):
        send(pid, signal.SIGSTOP)


def resume_tree(root: int) -> None:
    for pid in [*descendants(root), root]:
        send(pid, signal.SIGCONT)


def kill_tree(root: int, *, timeout: float = 10.0) -> None:
    """SIGKILL `root` and everything below it; returns when all of them are gone."""
    send(root, signal.SIGSTOP)
    family = [root, *descendants(root)]
    for pid in family:
        send(pid, signal.SIGKILL)
    deadline = time.monotonic() + timeout
    while survivors := {pid for pid, process in table().items() if not process.zombie}.intersection(family):
        if time.monotonic() > deadline:
            raise EventBusError(f"processes {sorted(survivors)} survived SIGKILL for {timeout:g} s")
        time.sleep(0.01)


class Watchdog:
    """Stops a server when the process that made the watchdog is gone, SIGKILL included.

    A shell that reads from a pipe nobody writes to: the kernel ends the pipe with the process that holds its
    other end. Linux' parent-death signal would not do: it is sent when the *thread* that forked ends, so a server
    started in a thread pool dies with the thread; and setting it takes code between fork and exec.
    """

    _SCRIPT = 'read -r _; kill -s "$1" "$2"; kill -s CONT "$2"'

    def __init__(self, pid: int, stop_signal: signal.Signals) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", self._SCRIPT, "eventbus-watchdog", stop_signal.name.removeprefix("SIG"), str(pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # Ctrl-C in a terminal is for the owner, who stops the server when he is ready
        )

    def dismiss(self) -> None:
        """To be called as soon as the server is gone, since its pid may then be given to another process."""
        self._process.kill()
        self._process.communicate()
